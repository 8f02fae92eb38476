"""How long a stage takes from the start of its process to its first step.

    python benchmarks/_speed_start.py --side generate|reward|ppo [--model smollm2|tiny]
    python benchmarks/_speed_start.py --side import-trl|import-trainer

A stage is run from a folder as users run it, with as little work in its first step as it takes: one
prompt, one new token. The first `metric` event ends the time, less what it says that its step took
(PPO's does, so that time ends where the step begins; the others' first step lies within theirs).
`import-trl` is `import trl` alone, which since TRL became lazy loads next to nothing;
`import-trainer` is `from trl import RewardTrainer`, the least that a program that trains with TRL
has to load.
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
import tempfile
import time
from typing import Any

IMPORTS = {"import-trl": "import trl", "import-trainer": "from trl import RewardTrainer"}
PROMPT = [{"role": "user", "content": "How do I boil an egg?"}]
RANKING = {
    "prompt": PROMPT,
    "answers": [{"id": "a", "text": "Seven minutes."}, {"id": "b", "text": "No idea."}],
    "ranks": {"a": 1, "b": 2},
}
STAGES: dict[str, dict[str, Any]] = {
    "generate": {"answers": 1, "max_new_tokens": 1},
    # a head from chance, as the rival's: to fit one first is work of the run
    "reward": {"epochs": 1, "heldout_fraction": 0.5, "head_start": False},
    "ppo": {
        "steps": 1, "episodes_per_step": 1, "answers_per_prompt": 1, "max_new_tokens": 1,
        "epochs": 1, "minibatches": 1, "samples": 1,
    },
}  # fmt: skip


def main() -> None:
    """Time one start and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", choices=[*IMPORTS, *STAGES], required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labelhub-start-") as name:
        if options.side in IMPORTS:
            began = time.time()
            usage = call([sys.executable, "-c", IMPORTS[options.side]])
            seconds = time.time() - began
        else:
            seconds, usage = start(Path(name), options)
    print(json.dumps({
        "units": 1, "seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }))  # fmt: skip


def start(folder: Path, options: argparse.Namespace) -> tuple[float, resource.struct_rusage]:
    """Run a stage; seconds from its process's start to its first step, what the whole run used."""
    inputs = {"policy": options.model, "prompts": "data/prompts.jsonl"}
    if options.side == "reward":
        inputs = {"base": options.model, "rankings": "data/rankings.jsonl"}
    if options.side == "ppo":
        inputs["reward"] = str(judge(folder / "judge", options))
    write_run(folder / "run", options, options.side, inputs)
    began = time.time()
    usage = call([sys.executable, "-m", "trainer", "run", str(folder / "run")])
    lines = (folder / "run" / "events.jsonl").read_text("utf-8").splitlines()
    first = next(event for event in map(json.loads, lines) if event["kind"] == "metric")
    step = sum(value for name, value in first.items() if name.startswith("seconds_"))
    return float(first["t"]) - step - began, usage


def judge(folder: Path, options: argparse.Namespace) -> Path:
    """A reward model for PPO."""
    inputs = {"base": options.model, "rankings": "data/rankings.jsonl"}
    write_run(folder, options, "reward", inputs)
    call([sys.executable, "-m", "trainer", "run", str(folder)])
    return folder / "out"


def write_run(
    folder: Path, options: argparse.Namespace, stage: str, inputs: dict[str, str]
) -> None:
    """A run folder."""
    (folder / "data").mkdir(parents=True)
    prompts = json.dumps({"id": "p", "prompt": PROMPT}) + "\n"
    (folder / "data" / "prompts.jsonl").write_text(prompts)
    rankings = [
        RANKING | {"prompt": [{"role": "user", "content": f"{PROMPT[0]['content']} ({n})"}]}
        for n in range(4)
    ]
    text = "".join(json.dumps(line) + "\n" for line in rankings)
    (folder / "data" / "rankings.jsonl").write_text(text)
    config = STAGES[stage] | {"threads": options.threads}
    spec = {"stage": stage, "seed": options.seed, "config": config, "inputs": inputs}
    (folder / "spec.json").write_text(json.dumps(spec))


def call(command: list[str]) -> resource.struct_rusage:
    """Run a program to its end; what it used. What it complains about is told when it fails."""
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            complaint = said.read()[-800:]
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}: {complaint}")
    return usage


if __name__ == "__main__":
    main()
