"""One side of `./run bench speed --only reward-4 reward-9`: rankings that a reward model learns
from in a second, in our reward stage or in TRL's RewardTrainer from the same rankings as pairs.

The last line is one JSON object: units (rankings), seconds and cpu_seconds of the timed steps,
peak_mb, and the accuracy on held-out pairs where it was asked for. The first step is not timed.

The same on both sides: SmolLM2-135M, a low-rank adapter on every linear layer with the stage's own
rank and scale, a fresh head, AdamW with the same rates, clipping and no weight decay, one epoch,
the same rankings in each optimiser step (for TRL all their pairs), the same tokens of every answer,
no checkpoint while the clock runs. Texts are put together here: prompts of 30 to 60 tokens, answers
of 20 to 90; people like glad words, with some noise.

Different, and why
- TRL reads K(K−1)/2 pairs of two whole conversations, since pairs are what it trains on; ours
  encodes a prompt once and each answer once. That is the point of the comparison.
- TRL keeps float32 weights under bfloat16 autocast, as its documentation has it; ours keeps
  bfloat16 weights with a float32 adapter. `--trl pure` gives TRL bfloat16 weights, adapter
  included.
- Ours starts from a random head at the last token and keeps all layers, as TRL does, and not as it
  would by itself (`head_start`, `even_reading`).
- TRL's gradient checkpointing, on by default, is off: it would only cost time here.
- TRL takes micro-batches of 12 pairs (`--micro`), padded to the longest; ours fill `token_budget`
  tokens with rankings of like length.

    python benchmarks/_speed_reward.py --side ours --answers 4
    python benchmarks/_speed_reward.py --side trl --answers 9
    python benchmarks/_speed_reward.py --accuracy --answers 4 --rankings 64
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import importlib
import json
import os
import random
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, TrainerCallback

from trainer import schedules
from trainer.config import RewardConfig, SFTConfig, load_spec, resolve_path
from trainer.data import read_rankings
from trainer.events import EventWriter, Heartbeat
from trainer.modeling import load_tokenizer
from trainer.scoring import encode
from trainer.stages import reward
from trainer.tiny import ADJECTIVES, dialogue
from trainer.types import RunContext

#: by the number of answers: rankings in an optimiser step, and steps; TRL takes about a minute
PLAN = {4: (4, 3), 9: (1, 3)}
#: rankings to test on with `--accuracy`
HELDOUT = 64
GLAD, SAD = (frozenset(ADJECTIVES[mood].split()) for mood in ("glad", "sad"))


def main() -> int:
    """Run one side, or both with a test."""
    options = read_options()
    if options.accuracy:
        return both_tested()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="labelhub-speed-") as name:
        side = ours if options.side == "ours" else theirs
        found = side(options, Path(name))
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found))
    return 0


def read_options() -> argparse.Namespace:
    """What was asked for, with the plan that fits the number of answers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--side", choices=("ours", "trl"), default="ours")
    parser.add_argument("--answers", type=int, default=4, help="answers of a ranking (K)")
    parser.add_argument("--rankings", type=int, default=0, help="rankings in all; 0: a minute")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--micro", type=int, default=12, help="pairs in a micro-batch of TRL's")
    parser.add_argument("--trl", choices=("autocast", "pure"), default="autocast")
    parser.add_argument("--config", type=json.loads, default={}, help="more settings of ours")
    parser.add_argument("--accuracy", action="store_true", help="both sides, tested on new prompts")
    parser.add_argument("--heldout", type=int, default=0, help="rankings to test on")
    options = parser.parse_args()
    options.per_step, steps = PLAN.get(options.answers, (1, 3))
    options.rankings = options.rankings or options.per_step * steps
    return options


def both_tested() -> int:
    """Both sides on the same rankings, tested on the same others."""
    rest = [argument for argument in sys.argv[1:] if argument != "--accuracy"]
    found = {}
    for side in ("ours", "trl"):
        command = [sys.executable, __file__, *rest, "--side", side, "--heldout", str(HELDOUT)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[side] = json.loads(lines.splitlines()[-1])
    print(json.dumps(found))
    return 0


# --- rankings


def make_rankings(count: int, answers: int, seed: int) -> list[dict[str, Any]]:
    """Lines of rankings.jsonl by a preference for glad words, with noise."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        asked = " ".join(dialogue(dice)[0] for _ in range(dice.randint(2, 5)))
        texts = [
            " ".join(dialogue(dice)[1] for _ in range(dice.randint(2, 7))) for _ in range(answers)
        ]
        merits = [merit(text, dice) for text in texts]
        ids = [f"{seed}-{number}-{k}" for k in range(answers)]
        places = sorted(merits, reverse=True)
        lines.append(
            {
                "prompt": [{"role": "user", "content": asked}],
                "answers": [{"id": i, "text": t} for i, t in zip(ids, texts, strict=True)],
                "ranks": {i: places.index(m) + 1 for i, m in zip(ids, merits, strict=True)},
            }
        )
    return lines


def merit(text: str, dice: random.Random) -> float:
    """Glad words less sad ones, and a mood of the annotator's own."""
    words = text.replace(".", "").replace(",", "").split()
    return sum((word in GLAD) - (word in SAD) for word in words) + dice.gauss(0.0, 1.0)


def write_data(options: argparse.Namespace, folder: Path) -> tuple[Path, Path | None]:
    """Files to train on and, if asked for, to test on."""
    paths = []
    for count, seed in (
        (options.rankings, options.seed),
        (options.heldout, options.seed + 10_000),
    ):
        lines = make_rankings(count, options.answers, seed)
        path = folder / f"rankings-{seed}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        paths.append(path)
    return paths[0], paths[1] if options.heldout else None


class Clock:
    """From the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def step_done(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def result(self, options: argparse.Namespace) -> dict[str, Any]:
        (begun, cpu), (ended, cpu_ended) = self.marks[0], self.marks[-1]
        return {
            "side": options.side,
            "answers": options.answers,
            "units": options.rankings - options.per_step,
            "seconds": ended - begun,
            "cpu_seconds": cpu_ended - cpu,
        }


# --- ours


class Timed(RunContext):
    """A run's surroundings that look at the clock after every step."""

    clock: Clock

    def emit(self, kind: str, step: int | None = None, **data: Any) -> None:
        if kind == "metric":
            self.clock.step_done()
        super().emit(kind, step, **data)


def ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The reward stage on a run folder, in this process."""
    rankings, heldout = write_data(options, folder)
    inputs = {"base": options.model, "rankings": str(rankings)}
    inputs |= {"heldout": str(heldout)} if heldout else {}
    config = {
        "epochs": 1,
        "rankings_per_step": options.per_step,
        "lr": schedules.RATE,
        "threads": options.threads,
        "checkpoint_every": 10**6,
        "heldout_fraction": 0.0,
        "head_start": False,
        "even_reading": False,
    } | options.config
    spec = {"stage": "reward", "seed": options.seed, "config": config, "inputs": inputs}
    clock, report = timed(reward.run, folder, spec)
    return clock.result(options) | {"accuracy": report["pair_accuracy"]}


def timed(
    stage: Callable[[RunContext], dict[str, Any]], folder: Path, spec: dict[str, Any]
) -> tuple[Clock, dict[str, Any]]:
    """A stage on that folder, in this process: when its steps ended, and its report."""
    (folder / "spec.json").write_text(json.dumps(spec), "utf-8")
    events = EventWriter(folder)
    with Heartbeat(events) as heartbeat:
        context = Timed(folder, load_spec(folder), events, heartbeat)
        context.clock = Clock()
        report = stage(context)
    return context.clock, report


# --- TRL


class Ticking(TrainerCallback):
    """Looks at the clock after every optimiser step of a transformers Trainer."""

    def __init__(self) -> None:
        self.clock = Clock()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.step_done()


def theirs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """RewardTrainer on all pairs of the same rankings, in the order in which ours takes them."""
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    trl, datasets = (importlib.import_module(name) for name in ("trl", "datasets"))
    settings = RewardConfig.from_json({"epochs": 1, "lr": schedules.RATE})
    path = resolve_path(options.model, folder)
    tokenizer = load_tokenizer(path)
    rankings, heldout = write_data(options, folder)
    plan = reward.plan_steps(options.rankings, 1, options.per_step, options.seed)
    by_ranking = tokenised_pairs(rankings, tokenizer)
    pairs = [pair for step in plan for index in step for pair in by_ranking[index]]
    a_step = len(pairs) // len(plan)
    micro = max(n for n in range(1, options.micro + 1) if a_step % n == 0)
    ticking = Ticking()
    args = trl.RewardConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=a_step // micro,
        num_train_epochs=1,
        learning_rate=settings.lr,
        max_grad_norm=settings.grad_clip,
        gradient_checkpointing=False,
        bf16=options.trl == "autocast",
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        logging_steps=10**6,
        train_sampling_strategy="sequential",
        disable_tqdm=True,
        max_length=None,
        seed=options.seed,
    )
    trainer = trl.RewardTrainer(
        model=open_model(options, path, tokenizer),
        args=args,
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=adapter(settings, "SEQ_CLS", modules_to_save=["score"]),
        callbacks=[ticking],
    )
    trainer.optimizer, trainer.lr_scheduler = same_optimizer(trainer.model, settings, len(plan))
    trainer.train()
    found = ticking.clock.result(options)
    found["accuracy"] = share_right(trainer.model, heldout, tokenizer) if heldout else None
    return found


def open_model(options: argparse.Namespace, path: Path, tokenizer: Any) -> Any:
    """The base with a head that starts as ours does."""
    dtype = torch.float32 if options.trl == "autocast" else torch.bfloat16
    model = AutoModelForSequenceClassification.from_pretrained(
        str(path), num_labels=1, dtype=dtype, local_files_only=True
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    reward.fresh_head(model.score, options.seed)
    return model


def adapter(settings: RewardConfig | SFTConfig, task_type: str, **more: Any) -> Any:
    """peft's form of the stage's adapter."""
    return importlib.import_module("peft").LoraConfig(
        task_type=task_type,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        **more,
    )


def same_optimizer(model: Any, settings: RewardConfig, steps: int) -> tuple[Any, Any]:
    """AdamW and the stage's schedule."""
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
    )
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedules.linear(step, steps, settings.warmup)
    )
    return optimizer, rates


def tokenised_pairs(path: Path, tokenizer: Any) -> list[list[dict[str, list[int]]]]:
    """Every pair of each ranking in TRL's form, in the tokens of ours."""
    found = []
    for ranking in read_rankings(path):
        prompt, answers = encode(tokenizer, ranking.messages, ranking.texts)
        whole = [prompt + answer for answer in answers]
        pairs = []
        for one, other in combinations(range(len(whole)), 2):
            better = ranking.ranks[one] < ranking.ranks[other]
            first, second = (one, other) if better else (other, one)
            pairs.append({"chosen_ids": whole[first], "rejected_ids": whole[second]})
        found.append(pairs)
    return found


@torch.no_grad()
def share_right(model: Any, path: Path, tokenizer: Any) -> float:
    """Share of the pairs that it orders rightly, each answer read alone."""
    model.eval()
    outcomes = []
    for pairs in tokenised_pairs(path, tokenizer):
        answers = {tuple(ids) for pair in pairs for ids in pair.values()}
        scores = {
            ids: float(model(input_ids=torch.tensor([ids])).logits[0, 0]) for ids in sorted(answers)
        }
        outcomes += [
            scores[tuple(pair["chosen_ids"])] > scores[tuple(pair["rejected_ids"])]
            for pair in pairs
        ]
    return sum(outcomes) / len(outcomes)


if __name__ == "__main__":
    sys.exit(main())
