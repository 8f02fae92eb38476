"""Writing answers, one side at a time: ours, `transformers` generate, llama.cpp.

    python benchmarks/_speed_generate.py --side ours|transformers|llama [--threads 2] [--seed 0]
    python benchmarks/_speed_generate.py --setup        llama.cpp with its Python bindings

All sides: SmolLM2-135M in bfloat16, the demo's first 16 prompts with 4 answers each side by side
(64 rows), exactly 64 new tokens each, drawn from the whole vocabulary at temperature 1. A first
short round that is not counted warms everything up.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import os
import resource
import subprocess
import time
import venv
from collections.abc import Callable
from typing import Any

PROMPTS, ANSWERS, TOKENS = 16, 4, 64
VAR = Path(os.environ.get("LABELHUB_VAR") or ROOT / "var")
LLAMA = VAR / "bench" / "llama"
#: built from source, as there are no wheels for this version of Python on the package index
BINDINGS = "llama-cpp-python==0.3.36"


def main() -> None:
    """Run a side, or set one up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", choices=sorted(SIDES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--setup", action="store_true")
    options = parser.parse_args()
    if options.setup:
        set_up()
    if options.side:
        SIDES[options.side](options)


def tell(write: Callable[[int], int]) -> None:
    """Time `write(tokens)`, which returns how many tokens it wrote, and print the figures."""
    write(4)
    wall, cpu = time.perf_counter(), time.process_time()
    units = write(TOKENS)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if units != PROMPTS * ANSWERS * TOKENS:
        raise SystemExit(f"{units} tokens were written instead of {PROMPTS * ANSWERS * TOKENS}")
    print(json.dumps(
        {"units": units, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak}
    ))  # fmt: skip


def prompts() -> list[list[dict[str, str]]]:
    """The demo's first prompts."""
    fixture = ROOT / "labelhub" / "prompts" / "fixtures" / "demo_prompts.en.jsonl"
    lines = fixture.read_text("utf-8").splitlines()[:PROMPTS]
    return [json.loads(line)["prompt"] for line in lines]


def model_path() -> Path:
    """The registered model."""
    from trainer.config import resolve_path

    return resolve_path("smollm2", ROOT)


def ours(options: argparse.Namespace) -> None:
    """The trainer's own loop."""
    import torch

    from trainer import modeling, rollout
    from trainer.types import Sampling

    torch.set_num_threads(options.threads)
    path = model_path()
    tokenizer = modeling.load_tokenizer(path)
    model = modeling.load_policy(path, modeling.Placement(torch.device("cpu"), torch.bfloat16))
    ids = [modeling.chat_ids(tokenizer, messages) for messages in prompts()]

    def write(tokens: int) -> int:
        seeds = [
            [rollout.answer_seed(options.seed, prompt, n) for n in range(ANSWERS)]
            for prompt in range(PROMPTS)
        ]
        with modeling.packed(model) as writer:
            answers = rollout.generate(
                writer, ids, seeds, Sampling(tokens), stop=[], pad=tokenizer.pad_token_id,
                batch_size=PROMPTS * ANSWERS,
            )  # fmt: skip
        return sum(len(answer.ids) for answer in answers)

    tell(write)


def transformers(options: argparse.Namespace) -> None:
    """`generate` of transformers as its documents use it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    path = str(model_path())
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    batch = tokenizer.apply_chat_template(
        prompts(), add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )

    def write(tokens: int) -> int:
        whole = model.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=ANSWERS,
            min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip
        return int(whole[:, batch["input_ids"].shape[1] :].numel())

    tell(write)


def set_up() -> None:
    """An environment with llama.cpp, built here for this processor: that takes minutes."""
    if not (LLAMA / "ready").is_file():
        venv.create(LLAMA, clear=True, with_pip=True)
        command = [LLAMA / "bin" / "python", "-m", "pip", "install", "--quiet", BINDINGS]
        subprocess.run(command, check=True)
        (LLAMA / "ready").touch()


SIDES: dict[str, Any] = {"ours": ours, "transformers": transformers}

if __name__ == "__main__":
    main()
