"""One side of `./run bench speed --only sft`: answers that a policy learns from in a second, in our
fine-tuning stage or in TRL's SFTTrainer, which is its loop.

The last line is one JSON object: units (answers), seconds and cpu_seconds of the timed steps,
peak_mb, and the losses of all steps. The first step is not timed. The texts are instructions and
answers that people wrote (self_instruct of LABELHUB_DATA), cut to 512 tokens.

The same on both sides: SmolLM2-135M, a low-rank adapter on every linear layer with the stage's own
rank and scale, the same tokens of the same rows in the same order, eight in a step, the loss on the
answers alone, AdamW with the same rates and clipping, no checkpoint while the clock runs.

Different, and why
- TRL scores prompts and padding, too, where there is no Triton, and pads a step's rows to the
  longest; ours leaves both out. That is the point of the comparison.
- TRL keeps float32 weights under bfloat16 autocast, as its documentation has it, which on this
  machine is quicker than bfloat16 weights with a float32 adapter as ours has them (`--trl pure`).
- TRL's gradient checkpointing, on by default, is off: it would only cost time here.

    python benchmarks/_speed_sft.py --side ours
    python benchmarks/_speed_sft.py --side trl --trl pure
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
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks._replay import Missing, read_lines
from benchmarks._speed_reward import Ticking, adapter, timed
from benchmarks._stages import write
from trainer.config import SFTConfig, resolve_path
from trainer.data import read_pairs
from trainer.events import read_events
from trainer.modeling import load_tokenizer
from trainer.stages import sft

#: answers in an optimiser step, steps, and tokens of a row at most
PER_STEP, STEPS, MOST = 8, 5, 512
FILES = ("seed_tasks.jsonl", "user_oriented_instructions.jsonl")


def main() -> int:
    """Run one side."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--side", choices=("ours", "trl"), default="ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--trl", choices=("autocast", "pure"), default="autocast")
    options = parser.parse_args()
    options.answers, options.per_step, options.rankings = 1, PER_STEP, PER_STEP * STEPS
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="labelhub-speed-") as name:
        folder = Path(name)
        try:
            drawn = random.Random(options.seed).sample(list(read_instructions()), PER_STEP * STEPS)
        except Missing as missing:
            sys.stderr.write(f"{missing}\n")
            return 1
        write(folder / "pairs.jsonl", drawn)
        found = (ours if options.side == "ours" else theirs)(options, folder)
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found))
    return 0


def read_instructions() -> Iterator[dict[str, Any]]:
    """Every instruction with its first input and answer, as lines of pairs.jsonl."""
    for name in FILES:
        for task in read_lines(f"self_instruct/{name}"):
            one = task["instances"][0]
            asked = "\n".join(filter(None, (task["instruction"], one["input"])))
            if one["output"].strip():
                prompt = [{"role": "user", "content": asked}]
                yield {"prompt": prompt, "answer": one["output"]}


def ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The stage on a run folder, in this process."""
    config = {
        "batch_size": PER_STEP,
        "max_length": MOST,
        "threads": options.threads,
        "checkpoint_every": 10**6,
        "heldout_fraction": 0.0,
    }
    inputs = {"base": options.model, "pairs": str(folder / "pairs.jsonl")}
    spec = {"stage": "sft", "seed": options.seed, "config": config, "inputs": inputs}
    clock, _ = timed(sft.run, folder, spec)
    losses = [event["loss"] for event in read_events(folder) if event["kind"] == "metric"]
    return clock.result(options) | {"losses": losses}


def theirs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """SFTTrainer on the same rows."""
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    trl, datasets = (importlib.import_module(name) for name in ("trl", "datasets"))
    config = SFTConfig()
    path = resolve_path(options.model, folder)
    tokenizer = load_tokenizer(path)
    rows = [sft.row_of(tokenizer, pair, MOST) for pair in read_pairs(folder / "pairs.jsonl")]
    masks = [[0] * row.prompt + [1] * (len(row.ids) - row.prompt) for row in rows]
    args = trl.SFTConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=PER_STEP,
        num_train_epochs=config.epochs,
        learning_rate=config.lr,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        max_grad_norm=config.grad_clip,
        gradient_checkpointing=False,
        completion_only_loss=True,
        max_length=MOST,
        bf16=options.trl == "autocast",
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
        seed=options.seed,
    )
    ticking = Ticking()
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=torch.float32 if options.trl == "autocast" else torch.bfloat16,
            local_files_only=True,
        ),
        args=args,
        train_dataset=datasets.Dataset.from_dict(
            {"input_ids": [row.ids for row in rows], "completion_mask": masks}
        ),
        processing_class=tokenizer,
        peft_config=adapter(config, "CAUSAL_LM"),
        callbacks=[ticking],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return ticking.clock.result(options) | {"losses": losses}


if __name__ == "__main__":
    raise SystemExit(main())
