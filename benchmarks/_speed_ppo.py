"""One PPO update by the trainer or by TRL 1.12's PPOTrainer; a side of `./run bench speed`.

    python benchmarks/_speed_ppo.py --side ours-head|ours-adapter|trl [--episodes 64] [--threads 2]
    python benchmarks/_speed_ppo.py --setup      the other side's environment, var/bench/trl112

The same for both: SmolLM2-135M in bfloat16, the demo's first prompts four times each, 32 new tokens
at temperature 1, two passes of four minibatches, rank-16 adapters on the linear layers of the same
layers (`--lora-layers`), one reward model (SmolLM2 with a head, every matrix disturbed, so that it
shares nothing with the policy), clip, value clip, GAE and β as our defaults. The last line printed
is JSON: answers, seconds from the first token to the last optimiser step without loading, processor
seconds of the same, and the most memory that the process ever held, in MB.

How the two differ, besides how they compute
- 1.12 is the last TRL with a PPOTrainer. It runs on this project's torch and transformers, in an
  environment of its own that finds all else in ours.
- TRL always trains a second full model as critic, here in bfloat16 with its optimiser states,
  which saves it time and memory. `ours-adapter` is a network of its own, too, though only an
  adapter and a head of it learn; `ours-head` is linear on the policy's states.
- TRL has no gradient clipping, writes one answer a prompt (each prompt is given four times), reads
  prompts padded to the longest, and weighs micro-batches equally. Its optimiser steps once in
  `gradient_accumulation_steps`, so a minibatch is one micro-batch here.
- TRL's gradient checkpointing is off (its default costs time), as are its sample answers and logs;
  ours writes no samples and no checkpoint within the time that is measured.
- TRL takes what is no padding for text, so padding must differ from the end of text: the
  registered SmolLM2 has been mended in that. It wants tokens as `input_ids` and a reward model with
  `.score`.
- Neither warms up by default (`--warm-up N` adds updates before the measured one).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import importlib
import json
import os
import resource
import subprocess
import sysconfig
import tempfile
import time
from contextlib import suppress
from typing import Any

import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from trainer.config import load_spec, resolve_path
from trainer.events import EventWriter, Heartbeat
from trainer.stages import ppo
from trainer.types import RunContext

BENCH = ROOT / "var" / "bench"
VENV = BENCH / "trl112"
PROMPTS = ROOT / "labelhub" / "prompts" / "fixtures" / "demo_prompts.en.jsonl"
SIDES = ("ours-head", "ours-adapter", "trl")
PER_PROMPT, TOKENS, EPOCHS, MINIBATCHES, RANK, BETA = 4, 32, 2, 4, 16, 0.05


def main() -> int:
    """Run one side, or make what it needs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--setup", action="store_true")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora-layers", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=0)
    options = parser.parse_args()
    if options.setup or not VENV.is_dir():
        set_up()
    if options.side is None:
        return 0
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.side == "trl" and Path(sys.prefix) != VENV:
        python = str(VENV / "bin" / "python")
        return subprocess.run([python, __file__, *sys.argv[1:]]).returncode
    reward_folder(options.model)
    clock = trl(options) if options.side == "trl" else ours(options)
    print(json.dumps(clock.figures(options.episodes)))
    return 0


def set_up() -> None:
    """A virtual environment with TRL 1.12 of its own and everything else from this one."""
    BENCH.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    install = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "trl==1.12.0"], check=True)
    (site,) = (VENV / "lib").glob("python*/site-packages")
    # read after what lies in the folder itself, so its own trl comes first
    (site / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")


class Clock:
    """Seconds by the wall and of processor, and the most memory."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """From here on it counts."""
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """It counted until here."""
        self.seconds = time.perf_counter() - self.wall
        self.cpu_seconds = time.process_time() - self.cpu

    def figures(self, units: int) -> dict[str, float]:
        """What the harness wants."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "units": units, "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3), "peak_mb": round(peak, 1),
        }  # fmt: skip


def model_folder(name: str) -> Path:
    """A registered model."""
    return resolve_path(name, ROOT)


def reward_folder(model: str) -> Path:
    """A reward model for both sides, made when there is none yet: the same every time."""
    folder = BENCH / f"ppo-reward-{model}"
    if (folder / "normalisation.json").is_file():
        return folder
    source = str(model_folder(model))
    torch.manual_seed(0)
    judge = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, dtype=torch.bfloat16
    )
    with torch.no_grad():
        for name, weight in judge.named_parameters():
            if weight.dim() == 2 and name != "score.weight":
                wide = weight.float()
                weight.copy_(wide + 0.01 * wide.std() * torch.randn(wide.shape))
    judge.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(source).save_pretrained(str(folder))
    (folder / "normalisation.json").write_text('{"mean": 0.0, "std": 1.0}\n', "utf-8")
    return folder


# --- ours ---------------------------------------------------------------------------------------


class Measured(Exception):
    """The update is done: what comes behind it is not asked for."""


def ours(options: argparse.Namespace) -> Clock:
    """The stage as it is, from the start of its first step to the metrics of its last."""
    clock, last = Clock(), options.warm_up

    class Watched(RunContext):
        """Tells the clock when a step begins and when it has been learned from."""

        def progress(self, share: float) -> None:
            if not getattr(self, "begun", False):
                self.begun = True
                clock.begin()

        def emit(self, kind: str, step: int | None = None, **data: Any) -> None:
            if kind == "metric" and step == last:
                clock.stop()
                sys.stderr.write(json.dumps({k: v for k, v in data.items() if "_" in k}) + "\n")
                raise Measured
            if kind == "metric" and step == last - 1:
                clock.begin()

    with tempfile.TemporaryDirectory(prefix="labelhub-speed-") as name:
        folder = Path(name)
        lines = PROMPTS.read_text("utf-8").splitlines()[: options.episodes // PER_PROMPT]
        (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        config = {
            "steps": last + 1, "episodes_per_step": options.episodes, "samples": 0,
            "answers_per_prompt": PER_PROMPT, "max_new_tokens": TOKENS, "epochs": EPOCHS,
            "minibatches": MINIBATCHES, "lora_r": RANK, "lora_alpha": 2.0 * RANK,
            "lora_layers": options.lora_layers, "kl_coef": BETA, "target_kl": 0.0,
            "critic": "adapter" if options.side == "ours-adapter" else "policy",
            "threads": options.threads, "checkpoint_every": last + 9, "dtype": "bfloat16",
        }  # fmt: skip
        inputs = {
            "policy": str(model_folder(options.model)),
            "reward": str(reward_folder(options.model)),
            "prompts": "prompts.jsonl",
        }
        spec = {"stage": "ppo", "config": config, "inputs": inputs, "seed": options.seed}
        (folder / "spec.json").write_text(json.dumps(spec))
        events = EventWriter(folder)
        with Heartbeat(events) as heartbeat, suppress(Measured):
            ppo.run(Watched(folder, load_spec(folder), events, heartbeat))
            raise RuntimeError("the run ended before its last step")
    return clock


# --- TRL ----------------------------------------------------------------------------------------


def trl(options: argparse.Namespace) -> Clock:
    """PPOTrainer's own loop, from its beginning to the end of an update."""
    torch.set_num_threads(options.threads)
    trainer, clock = ppo_trainer(options), Clock()

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Starts the clock with training, stops it after the last update."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == options.warm_up:
                clock.begin()
            clock.stop()

    trainer.add_callback(Watch())
    trainer.train()
    return clock


def ppo_trainer(options: argparse.Namespace) -> Any:
    """TRL's trainer with everything loaded."""
    # only in its own environment, and not in the memory of the other sides
    theirs = importlib.import_module("trl.experimental.ppo")
    dataset = importlib.import_module("datasets").Dataset.from_dict
    path = str(model_folder(options.model))
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    judge, critic = (
        AutoModelForSequenceClassification.from_pretrained(
            str(reward_folder(options.model)), num_labels=1, dtype=torch.bfloat16
        )
        for _ in range(2)
    )
    lines = PROMPTS.read_text("utf-8").splitlines()[: options.episodes // PER_PROMPT]
    ids = [
        tokenizer.apply_chat_template(
            json.loads(line)["prompt"], add_generation_prompt=True, return_dict=False
        )
        for line in lines
    ]
    layers = int(policy.config.num_hidden_layers)
    adapted = range(layers - (options.lora_layers or layers), layers)
    updates = options.warm_up + 1
    arguments = theirs.PPOConfig(
        output_dir=tempfile.mkdtemp(prefix="labelhub-speed-"),
        per_device_train_batch_size=options.episodes,
        gradient_accumulation_steps=1,
        total_episodes=options.episodes * updates,
        num_mini_batches=MINIBATCHES,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=options.episodes,
        response_length=TOKENS,
        temperature=1.0,
        stop_token_id=tokenizer.eos_token_id,
        kl_coef=BETA,
        cliprange=0.2,
        cliprange_value=0.2,
        vf_coef=0.1,
        gamma=1.0,
        lam=1.0,
        learning_rate=1e-4,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=options.seed,
    )
    return theirs.PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=judge,
        value_model=critic,
        train_dataset=dataset({"input_ids": [one for one in ids for _ in range(4)]}),
        eval_dataset=dataset({"input_ids": ids[:1]}),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=RANK,
            lora_alpha=2 * RANK,
            lora_dropout=0.0,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                            "down_proj"],
            layers_to_transform=list(adapted),
            layers_pattern="layers",
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
