"""What does a reward model learn from real people's choices? `./run bench reward_hh`

Anthropic's HH-RLHF: trained on helpful-online and helpful-rejection-sampled, tested on
helpful-base, which has prompts of another kind. Beside it stand two floors (the longer answer;
Bradley–Terry on words), TRL's RewardTrainer on the same pairs, and, on Open-Assistant's rankings,
whole rankings against their pairs one by one.

    ./run bench reward_hh                            everything, for hours
    ./run bench reward_hh --only floors ours --seeds 0
    ./run bench reward_hh --only trl --seeds 0 --limit 1000
    ./run bench reward_hh --table                    what was measured before

Choices
- Our side is the reward stage on a run folder, with the settings that docs/measured says; `shipped`
  is the same with none set, an hour and a half of a free core a seed.
- A conversation keeps its last turns up to about 96 tokens (never less than the last one), an
  answer its first 192 tokens, for every side and for the test: on two cores whole texts would take
  three times as long.
- TRL trains the same first layers of the same model with a low-rank adapter on all of them, its
  other settings as they stand, in the number format that is quicker on this processor, as ours;
  without `--limit` it takes an hour and a quarter of a free core a seed. oneDNN keeps as much for
  it as in our runs: with more room TRL's process grows to 14 GB.
- Figures go to docs/measured/reward_hh.json after every run, so a stopped benchmark keeps them.
- Seeds choose the order of the data and the adapter's start. The interval is over test prompts.
- Our settings were found with the help of half of the test pairs, so the accuracy on the other half
  stands beside the whole (`untouched`): it is the one to believe.
Needs LABELHUB_DATA (default ../shared/data).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

from trainer.__main__ import set_environment

set_environment(1)  # before torch is imported; `--threads` comes after

import argparse
import dataclasses
import importlib
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks._figures import keep, stored
from benchmarks._replay import Missing, Set, read_hh, read_oasst
from benchmarks._stages import run, write
from benchmarks.speed import machine
from trainer.config import resolve_path
from trainer.data import prompt_hash
from trainer.modeling import chat_ids, load_tokenizer
from trainer.placement import quick_at_bfloat16
from trainer.statistics import clustered_share

FIGURES = ROOT / "docs" / "measured" / "reward_hh.json"
PARTS = ("floors", "head", "ours", "shipped", "lists", "trl")
PROMPT_TOKENS, ANSWER_TOKENS = 96, 192
#: settings of our side; the rest are the stage's own
OURS: dict[str, Any] = {
    "layers": 16, "lora_layers": 4, "even_reading": True, "head_start": True, "lr": 2e-4,
    "rankings_per_step": 32, "epochs": 1, "token_budget": 2048,
}  # fmt: skip
#: test pairs, drawn with seed 0, that helped to choose these settings
CHOSEN_ON = 585
#: rankings of several answers
LISTS = {"oasst_en_trees": "ranked.jsonl", "oasst_zh_rank": "ranked.dev.jsonl.gz"}
#: words that occur less often are left out of the floor
RARE = 5


def main() -> int:
    """Run the parts that were asked for and print the table."""
    options = read_options()
    if not options.table:
        try:
            measure(options)
        except Missing as missing:
            sys.stderr.write(f"{missing}\n")
            return 1
    print("\n".join(table(stored(FIGURES))))
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=0, help="pairs to train on; 0: all")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--config", type=json.loads, default={}, help="other settings of ours")
    parser.add_argument("--table", action="store_true", help="show what was measured before")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> None:
    """Every part that was asked for, seed by seed."""
    name = f"limit-{options.limit}" if options.limit else "all"
    cpu = machine(options.threads)["cpu"]
    tokenizer = load_tokenizer(resolve_path(options.model, ROOT))
    training = cut(read_hh("helpful-online.test") + read_hh("helpful-rejection-sampled.test"),
                   tokenizer)  # fmt: skip
    testing = cut(read_hh("helpful-base.dev"), tokenizer)
    if options.limit:
        training = random.Random(0).sample(training, options.limit)
    if "floors" in options.only:
        put(["hh", "floors", name], floors(training, testing))
    for part, run_side in SIDES.items():
        seeds = options.seeds if part in options.only else []
        for seed in seeds[:1] if part == "head" else seeds:  # a head's fit is free of chance
            found, scores = run_side(options, training, testing, seed)
            found["untouched"] = on_untouched(training, testing, scores)
            found["cpu"] = cpu
            put(["hh", part, name, str(seed)], found)
    for source, file in LISTS.items() if "lists" in options.only else []:
        sets = cut(read_oasst(f"{source}/{file}"), tokenizer)
        for seed in options.seeds:
            put(["lists", source, str(seed)], lists(options, sets, seed) | {"cpu": cpu})


# --- texts


def cut(sets: Sequence[Set], tokenizer: Any) -> list[Set]:
    """The same sets, conversations cut to their last turns, answers to their first tokens."""
    return [
        dataclasses.replace(
            one,
            messages=last_turns(one.messages, tokenizer),
            texts=tuple(beginning(text, tokenizer) for text in one.texts),
        )
        for one in sets
    ]


def last_turns(messages: Sequence[dict[str, str]], tokenizer: Any) -> tuple[dict[str, str], ...]:
    """Whole turns from the end that fit; the last is always kept."""
    kept = list(messages)
    while len(kept) > 1 and len(chat_ids(tokenizer, kept)) > PROMPT_TOKENS:
        kept = kept[1:]
        while kept[0]["role"] != "user":
            kept = kept[1:]
    return tuple(kept)


def beginning(text: str, tokenizer: Any) -> str:
    """Its first tokens as text."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= ANSWER_TOKENS else tokenizer.decode(ids[:ANSWER_TOKENS])


def as_lines(sets: Sequence[Set]) -> list[dict[str, Any]]:
    """Lines of rankings.jsonl."""
    lines = []
    for number, one in enumerate(sets):
        (ranks,) = one.ranks.values()
        ids = [f"{number}-{k}" for k in range(len(one.texts))]
        answers = [{"id": i, "text": text} for i, text in zip(ids, one.texts, strict=True)]
        places = dict(zip(ids, ranks, strict=True))
        lines.append({"prompt": list(one.messages), "answers": answers, "ranks": places})
    return lines


def pairs_alone(sets: Sequence[Set]) -> list[Set]:
    """Every untied pair as a set of its own."""
    found = []
    for one in sets:
        ((who, ranks),) = one.ranks.items()
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j]:
                places = (1, 2) if ranks[i] < ranks[j] else (2, 1)
                texts = (one.texts[i], one.texts[j])
                found.append(dataclasses.replace(one, texts=texts, ranks={who: places}))
    return found


# --- floors


def floors(training: Sequence[Set], testing: Sequence[Set]) -> dict[str, Any]:
    """The longer answer, and Bradley–Terry on words with a ridge chosen by five folds."""
    longer = [len(text) for one in testing for text in one.texts]
    words = word_model(training)
    scores = [words(text) for one in testing for text in one.texts]
    return {
        "training_pairs": len(training),
        "longest": share_right(testing, longer),
        "words": share_right(testing, scores),
    }


def word_model(training: Sequence[Set]) -> Callable[[str], float]:
    """Scores by words: Σ weight · log(1 + count)."""
    known = Counter(word for one in training for text in one.texts for word in set(split(text)))
    place = {word: n for n, word in enumerate(sorted(w for w, n in known.items() if n >= RARE))}

    def row(text: str) -> torch.Tensor:
        found = torch.zeros(len(place))
        for word, count in Counter(split(text)).items():
            if word in place:
                found[place[word]] = np.log1p(count)
        return found

    x = []
    for one in training:
        (ranks,) = one.ranks.values()
        better, worse = (one.texts[ranks.index(rank)] for rank in (1, 2))
        x.append(row(better) - row(worse))
    difference = torch.stack(x)
    fold = torch.tensor([int(prompt_hash(one.messages)[:8], 16) % 5 for one in training])

    def loss_of(ridge: float) -> float:
        held = [
            torch.nn.functional.softplus(-difference[fold == n] @ fit(difference[fold != n], ridge))
            for n in range(5)
        ]
        return float(torch.cat(held).mean())

    weight = fit(difference, min((1.0, 3.0, 10.0, 30.0, 100.0), key=loss_of))
    return lambda text: float(row(text) @ weight)


def split(text: str) -> list[str]:
    """Its words in small letters."""
    return re.findall(r"[a-z']+", text.lower())


def fit(difference: torch.Tensor, ridge: float) -> torch.Tensor:
    """Weights of least loss Σ −log σ(x w) + ½ ridge |w|²."""
    weight = torch.zeros(difference.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.softplus(-difference @ weight).sum()
        loss = loss + 0.5 * ridge * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def share_right(sets: Sequence[Set], scores: Sequence[float]) -> dict[str, Any]:
    """Pair accuracy of flat scores, its interval over prompts."""
    outcomes, clusters = [], []
    first = 0
    for one in sets:
        (ranks,) = one.ranks.values()
        own = scores[first : first + len(ranks)]
        first += len(ranks)
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j]:
                sign = np.sign((own[i] - own[j]) * (ranks[j] - ranks[i]))
                outcomes.append((float(sign) + 1) / 2)
                clusters.append(prompt_hash(one.messages))
    found = clustered_share(np.array(outcomes), clusters)
    if found is None:
        raise Missing("There is no pair to test on.")
    return {"pair_accuracy": found.value, "ci95": found.ci95, "pairs": found.n}


def on_untouched(
    training: Sequence[Set], testing: Sequence[Set], scores: Sequence[float]
) -> dict[str, Any]:
    """Accuracy on the test pairs that had no part in choosing the settings."""
    dice = np.random.default_rng(0)
    dice.permutation(len(training))
    chosen = sorted(dice.permutation(len(testing))[CHOSEN_ON:].tolist())
    own = [score for number in chosen for score in scores[2 * number : 2 * number + 2]]
    return share_right([testing[number] for number in chosen], own)


# --- sides

Result = tuple[dict[str, Any], list[float]]  # figures, and the score of each test answer in turn


def our_stage(
    settings: dict[str, Any],
    fixed: dict[str, Any],
    options: argparse.Namespace,
    training: Sequence[Set],
    testing: Sequence[Set],
    seed: int,
) -> Result:
    """The reward stage; figures of its own report on the test file. `--config` goes before
    `settings`, and `fixed` before both.
    """
    config = settings | {"threads": options.threads} | options.config | fixed
    with tempfile.TemporaryDirectory(prefix="labelhub-hh-") as name:
        return train(Path(name), options.model, training, testing, config, seed)


def train(
    folder: Path,
    model: str,
    training: Sequence[Set],
    testing: Sequence[Set],
    config: dict[str, Any],
    seed: int,
) -> Result:
    """One reward run on its own rankings and test."""
    for file, sets in (("rankings", training), ("heldout", testing)):
        write(folder / f"{file}.jsonl", as_lines(sets))
    inputs = {"base": model, "rankings": "rankings.jsonl", "heldout": "heldout.jsonl"}
    begun = time.monotonic()
    out = run(folder, "reward", config, inputs, seed)
    report = json.loads((out / "report.json").read_text("utf-8"))
    kept = (
        "pair_accuracy", "ci95", "pairs", "kendall_tau_b", "train_pair_accuracy", "ece",
        "ece_calibrated", "temperature", "train_rankings", "steps", "ensemble",
    )  # fmt: skip
    lines = (out / "heldout_scores.jsonl").read_text("utf-8").splitlines()
    figures = {
        **{key: report[key] for key in kept if key in report},
        "config": config,
        "seconds": round(time.monotonic() - begun),
    }
    return figures, [json.loads(line)["score"] for line in lines]


def theirs(
    options: argparse.Namespace, training: Sequence[Set], testing: Sequence[Set], seed: int
) -> Result:
    """TRL's RewardTrainer on the same pairs, tested on the same file."""
    trl, datasets, peft, transformers = (
        importlib.import_module(name) for name in ("trl", "datasets", "peft", "transformers")
    )
    torch.set_num_threads(options.threads)
    path = resolve_path(options.model, ROOT)
    tokenizer = load_tokenizer(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(path), num_labels=1, dtype=torch.float32, num_hidden_layers=OURS["layers"]
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    settings = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 8,
        "num_train_epochs": 1, "gradient_checkpointing": False, "bf16": quick_at_bfloat16(),
    }  # fmt: skip
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="labelhub-hh-trl-") as name:
        trainer = trl.RewardTrainer(
            model=model,
            args=trl.RewardConfig(
                output_dir=name, use_cpu=True, save_strategy="no", report_to=[], seed=seed,
                disable_tqdm=True, **settings,
            ),
            train_dataset=datasets.Dataset.from_list(list(preferences(training))),
            processing_class=tokenizer,
            peft_config=peft.LoraConfig(
                task_type="SEQ_CLS", r=16, lora_alpha=32, lora_dropout=0.0,
                target_modules="all-linear", modules_to_save=["score"],
            ),
        )  # fmt: skip
        trainer.train()
    seconds = round(time.monotonic() - begun)
    scores = read_scores(trainer.model, tokenizer, testing)
    figures = {
        **share_right(testing, scores),
        "train_rankings": len(training),
        "config": settings
        | {"layers": OURS["layers"], "learning_rate": trainer.args.learning_rate},
        "seconds": seconds,
    }
    return figures, scores


def preferences(sets: Sequence[Set]) -> Iterator[dict[str, Any]]:
    """TRL's conversational pairs."""
    for one in pairs_alone(sets):
        (ranks,) = one.ranks.values()
        better, worse = (one.texts[ranks.index(rank)] for rank in (1, 2))
        yield {
            "prompt": list(one.messages),
            "chosen": [{"role": "assistant", "content": better}],
            "rejected": [{"role": "assistant", "content": worse}],
        }


@torch.no_grad()
def read_scores(model: Any, tokenizer: Any, sets: Sequence[Set]) -> list[float]:
    """Its score of every answer, one at a time."""
    model.eval()
    scores = []
    for one in sets:
        for text in one.texts:
            turns = [*one.messages, {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
            with torch.autocast("cpu", torch.bfloat16, enabled=quick_at_bfloat16()):
                scores.append(float(model(input_ids=torch.tensor([ids])).logits[0, 0]))
    return scores


#: the head fitted to the states of the frozen base, without a step; our settings; none of them; TRL
SIDES: dict[str, Callable[..., Result]] = {
    "head": partial(our_stage, OURS, {"epochs": 0}),
    "ours": partial(our_stage, OURS, {}),
    "shipped": partial(our_stage, {}, {}),
    "trl": theirs,
}


def lists(options: argparse.Namespace, sets: Sequence[Set], seed: int) -> dict[str, Any]:
    """Whole rankings, Plackett–Luce and pairs one by one; a third of the conversations is held out.

    A step of pairs has as many of them as a step of rankings has on average.
    """
    groups = sorted({one.group for one in sets})
    held = set(random.Random(seed).sample(groups, len(groups) // 3))
    training = [one for one in sets if one.group not in held]
    testing = [one for one in sets if one.group in held]
    alone = pairs_alone(training)
    config = OURS | {"threads": options.threads, "rankings_per_step": 8} | options.config
    per_step = max(1, round(8 * len(alone) / len(training)))
    found: dict[str, Any] = {"rankings": len(training), "pairs": len(alone)}
    for name, data, more in (
        ("listwise", training, {}),
        ("plackett_luce", training, {"loss": "plackett_luce"}),
        ("pairs", alone, {"rankings_per_step": per_step}),
    ):
        with tempfile.TemporaryDirectory(prefix="labelhub-lists-") as folder:
            found[name], _ = train(Path(folder), options.model, data, testing, config | more, seed)
    return found


# --- figures


def put(keys: Sequence[str], value: dict[str, Any]) -> None:
    """Keep one result, and say so."""
    keep(FIGURES, keys, value)
    sys.stderr.write(f"{' '.join(keys)}: done\n")


def table(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as Markdown."""
    yield (
        "| trained on | side | seeds | pairs in the right order | interval of the first seed "
        "| untouched pairs |"
    )
    yield "|---|---|---|---|---|---|"
    for part in ("floors", *SIDES):
        for name, found in sorted(figures.get("hh", {}).get(part, {}).items()):
            if part == "floors":
                for side in ("longest", "words"):
                    yield row(name, side, [found[side]])
            else:
                yield row(name, part, [found[seed] for seed in sorted(found)])
    for source, seeds in sorted(figures.get("lists", {}).items()):
        for side in ("listwise", "plackett_luce", "pairs"):
            yield row(source, side, [seeds[seed][side] for seed in sorted(seeds)])


def row(name: str, side: str, runs: Sequence[dict[str, Any]]) -> str:
    """One line: mean and range over seeds."""
    values = [run["pair_accuracy"] for run in runs]
    low, high = runs[0]["ci95"]
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    interval = f"{low:.3f} to {high:.3f}"
    fresh = [run["untouched"]["pair_accuracy"] for run in runs if "untouched" in run]
    untouched = f"{fmean(fresh):.3f}" if fresh else ""
    return (
        f"| {name} | {side} | {len(runs)} | {fmean(values):.3f}{spread} | {interval} "
        f"| {untouched} |"
    )


if __name__ == "__main__":
    sys.exit(main())
