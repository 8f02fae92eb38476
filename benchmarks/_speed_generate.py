"""Writing answers, one side at a time: ours, `transformers` generate, llama.cpp.

    python benchmarks/_speed_generate.py --side ours|transformers|llama [--threads 2] [--seed 0]
    python benchmarks/_speed_generate.py --setup        llama.cpp with its Python bindings

All sides: SmolLM2-135M in bfloat16, 16 prompts with 4 answers each side by side (64 rows), exactly
64 new tokens each, drawn from the whole vocabulary at temperature 1. A first short round that is
not counted warms everything up.

The prompts are the demo's first (16 to 57 tokens), or with `--conversations` the first of
HH-RLHF's helpful-base (20 to 383 tokens; LABELHUB_DATA), as they come.
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
import tarfile
import time
import venv
from collections.abc import Callable
from typing import Any

from benchmarks._replay import read_hh

PROMPTS, ANSWERS, TOKENS = 16, 4, 64
VAR = Path(os.environ.get("LABELHUB_VAR") or ROOT / "var")
LLAMA = VAR / "bench" / "llama"
GGUF = LLAMA / "smollm2-bf16.gguf"
#: whether all sequences share one cache of llama.cpp: each then looks at all of it, 2.4 × slower
UNIFIED = False
#: built from source, as there are no wheels for this version of Python on the package index
BINDINGS = "llama-cpp-python==0.3.36"


def main() -> None:
    """Run a side, or set one up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", choices=sorted(SIDES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conversations", action="store_true")
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


def prompts(conversations: bool) -> list[list[dict[str, str]]]:
    """The demo's first prompts, or the first conversations."""
    if conversations:
        return [list(one.messages) for one in read_hh("helpful-base.dev")[:PROMPTS]]
    fixture = ROOT / "labelhub" / "prompts" / "fixtures" / "demo_prompts.en.jsonl"
    lines = fixture.read_text("utf-8").splitlines()[:PROMPTS]
    return [json.loads(line)["prompt"] for line in lines]


def model_path() -> Path:
    """The registered model."""
    from trainer.config import resolve_path

    return resolve_path("smollm2", ROOT)


def ours(options: argparse.Namespace) -> None:
    """The trainer's own loop."""
    from trainer.__main__ import load

    rollout = load("trainer.rollout")  # as a run loads it: no search for garbage goes over modules
    import torch

    from trainer import modeling, packing, placement
    from trainer.types import Sampling

    torch.set_num_threads(options.threads)
    path = model_path()
    tokenizer = modeling.load_tokenizer(path)
    model = modeling.load_policy(path, placement.Placement(torch.device("cpu"), torch.bfloat16))
    ids = [modeling.chat_ids(tokenizer, messages) for messages in prompts(options.conversations)]

    def write(tokens: int) -> int:
        seeds = [
            [rollout.answer_seed(options.seed, prompt, n) for n in range(ANSWERS)]
            for prompt in range(PROMPTS)
        ]
        with packing.packed(model) as writer:
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
        prompts(options.conversations), add_generation_prompt=True, padding=True,
        return_tensors="pt", return_dict=True,
    )  # fmt: skip

    def write(tokens: int) -> int:
        whole = model.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=ANSWERS,
            min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip
        return int(whole[:, batch["input_ids"].shape[1] :].numel())

    tell(write)


def llama(options: argparse.Namespace) -> None:
    """llama.cpp through its Python bindings, by the script beside this one."""
    if not (LLAMA / "ready").is_file():
        raise SystemExit(
            "There is no llama.cpp yet; run this script with --setup, which takes minutes."
        )
    told = ask_llama(job(options.threads, options.seed, options.conversations))
    found = json.loads(told)
    if found["units"] != PROMPTS * ANSWERS * TOKENS:
        raise SystemExit(f"llama.cpp wrote {found['units']} tokens")
    print(told.strip().splitlines()[-1])


def job(threads: int, seed: int, conversations: bool) -> dict[str, Any]:
    """What the script of llama.cpp is told."""
    from trainer import modeling

    tokenizer = modeling.load_tokenizer(model_path())
    return {
        "model": str(GGUF), "answers": ANSWERS, "tokens": TOKENS, "threads": threads, "seed": seed,
        "prompts": [modeling.chat_ids(tokenizer, messages) for messages in prompts(conversations)],
        "unified": UNIFIED,
    }  # fmt: skip


def ask_llama(what: dict[str, Any], *arguments: str) -> str:
    """Run the script of llama.cpp in its environment; what it prints."""
    command = [LLAMA / "bin" / "python", ROOT / "benchmarks" / "_speed_llama.py", *arguments]
    done = subprocess.run(command, input=json.dumps(what), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"llama.cpp: {done.stderr.strip()[-2000:]}")
    return done.stdout


def set_up() -> None:
    """An environment with llama.cpp, built here for this processor (minutes), and our weights in
    its format; both are tried on the likeliest next tokens.
    """
    if not (LLAMA / "bin" / "python").is_file():
        venv.create(LLAMA, with_pip=True)
    if not (LLAMA / "ready").is_file():
        build()
    if not GGUF.is_file():
        convert(model_path(), GGUF)
    check()
    (LLAMA / "ready").touch()


def build() -> None:
    """Compile and install llama.cpp's bindings; an interrupted build goes on where it was."""
    pip = [str(LLAMA / "bin" / "python"), "-m", "pip"]
    source = LLAMA / "source"
    if not source.is_dir():
        fetch = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(LLAMA)]
        subprocess.run([*pip, *fetch, BINDINGS], check=True)
        (archive,) = LLAMA.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as bundle:
            bundle.extractall(LLAMA / "unpacked", filter="data")
        (folder,) = (LLAMA / "unpacked").iterdir()
        folder.rename(source)
    install = ["install", "--quiet", "-C", f"build-dir={LLAMA / 'build'}", str(source)]
    # its parts for pictures are of no use here
    environment = dict(os.environ) | {"CMAKE_ARGS": "-DLLAVA_BUILD=OFF"}
    subprocess.run([*pip, *install], check=True, env=environment)


def check() -> None:
    """Refuse weights that do not say the same: rounding may turn one or two of the likeliest."""
    import torch

    from trainer import modeling, placement

    what = job(os.cpu_count() or 1, 0, conversations=False)
    theirs = json.loads(ask_llama(what, "--check"))
    place = placement.Placement(torch.device("cpu"), torch.bfloat16)
    model = modeling.load_policy(model_path(), place)
    ours = [int(model(torch.tensor([ids])).logits[0, -1].argmax()) for ids in what["prompts"]]
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    print(f"The likeliest next token is the same for {same} of {PROMPTS} prompts.")
    if same < PROMPTS - 2:
        raise SystemExit("llama.cpp computes something else with the converted weights.")


def convert(source: Path, target: Path) -> None:
    """A Llama-shaped model folder as GGUF in bfloat16, without its tokenizer: tokens go in and out.

    llama.cpp pairs neighbouring numbers when it turns queries and keys by position, transformers
    the halves of a head: the rows are reordered to that.
    """
    import gguf
    import numpy as np
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    heads, size = config["num_attention_heads"], config["head_dim"]
    file = gguf.GGUFWriter(str(target), "llama")
    file.add_context_length(config["max_position_embeddings"])
    file.add_embedding_length(config["hidden_size"])
    file.add_block_count(config["num_hidden_layers"])
    file.add_feed_forward_length(config["intermediate_size"])
    file.add_head_count(heads)
    file.add_head_count_kv(config["num_key_value_heads"])
    file.add_rope_dimension_count(size)
    file.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    file.add_layer_norm_rms_eps(config["rms_norm_eps"])
    file.add_vocab_size(config["vocab_size"])
    file.add_tokenizer_model("no_vocab")
    file.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, weight in load_file(source / "model.safetensors").items():
        values = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            halves = values.reshape(-1, 2, size // 2, values.shape[1])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        kind = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else gguf.GGMLQuantizationType.BF16
        file.add_tensor(
            names.get_name(name, try_suffixes=(".weight",)),
            gguf.quants.quantize(values, kind),
            raw_dtype=kind,
        )
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


SIDES: dict[str, Any] = {"ours": ours, "transformers": transformers, "llama": llama}

if __name__ == "__main__":
    main()
