"""Two processes do what one does: the same losses, one writer, one moment to stop."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.tiny import make_tiny, make_tiny_encoder, make_tiny_reward, write_prompts
from tests.trainer.judging import events_of, make_run, ranking_lines, run_here, write_lines
from trainer import distributed, ranks
from trainer.__main__ import main
from trainer.manifests import verify_manifest

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGS = ROOT / "trainer" / "accelerate_configs"
#: figures of a metric event that are the time, or nothing but rounding
OTHER = {"t", "sampler_gap"}
STAGES = (
    *("reward", "reward deep", "pretrain", "sft", "dpo", "rloo", "bestofn", "ppo", "ppo full"),
    "generate",
)


def specs(folder: Path) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Stage, inputs and settings by name; batches divide by two, float32."""
    policy, reward = make_tiny(folder), make_tiny_reward(folder)
    lines = ranking_lines(8)
    rankings = write_lines(folder / "rankings.jsonl", lines)
    texts = [answer["text"] for line in lines for answer in line["answers"]]
    pairs = [
        {"prompt": line["prompt"], "answer": answer["text"]}
        for line in lines
        for answer in line["answers"][:2]
    ]
    pairs_file = write_lines(folder / "pairs.jsonl", pairs)
    prompts = write_prompts(folder / "prompts.jsonl", 8)
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join([*texts[n : n + 6], str(n)]) for n in range(24)))
    others = [{"id": "h", "prompt": [{"role": "user", "content": "see the red sun and sea"}]}]
    heldout = write_lines(folder / "heldout.jsonl", others)
    judged = {"policy": policy, "reward": reward, "prompts": prompts}
    common = {"heldout_fraction": 0.0, "dtype": "float32"}
    short = common | {"max_new_tokens": 4, "samples": 0}
    return {
        # three rankings on two processes: shares of different size
        "reward": (
            "reward",
            {"base": policy, "rankings": rankings, "heldout": rankings},
            {"rankings_per_step": 3, "epochs": 1, "dtype": "float32", "ensemble": 2},
        ),
        # deep enough for a choice of its depth
        "reward deep": (
            "reward",
            {"base": make_tiny(folder / "deep", num_hidden_layers=10), "rankings": rankings},
            common | {"epochs": 1},
        ),
        "pretrain": (
            "pretrain",
            {"text": text},
            {"size": "1m", "max_length": 16, "batch_size": 3, "steps": 3, "vocabulary": 280}
            | {"dtype": "float32", "micro_batch_size": 1},
        ),
        "sft": ("sft", {"base": policy, "pairs": pairs_file}, common | {"batch_size": 4}),
        "dpo": (
            "prefer",
            {"policy": policy, "rankings": rankings},
            short | {"batch_size": 2, "best_worst": True},
        ),
        "rloo": (
            "prefer",
            judged,
            short | {"method": "rloo", "batch_size": 8, "answers": 2, "steps": 2, "kl_coef": 0.1},
        ),
        # three prompts a step on two processes, then one process with no answer of a minibatch
        "ppo": (
            "ppo",
            judged | {"second": make_tiny_encoder(folder / "encoder", scores=True)},
            {"steps": 2, "episodes_per_step": 6, "answers_per_prompt": 2, "minibatches": 2}
            | {"max_new_tokens": 4, "dtype": "float32", "samples": 2, "batch_size": 6},
        ),
        "ppo full": (
            "ppo",
            judged | {"pairs": pairs_file, "heldout": heldout},
            {"steps": 2, "episodes_per_step": 4, "answers_per_prompt": 1, "minibatches": 4}
            | {"max_new_tokens": 4, "dtype": "float32", "lora": False, "critic": "policy"}
            | {"ptx_coef": 0.5, "ptx_batch": 3, "lr": 1e-3, "critic_warmup": 1},
        ),
        # three chunks of one or two prompts
        "generate": (
            "generate",
            {"policy": policy, "prompts": prompts},
            {"answers": 2, "batch_size": 2, "max_new_tokens": 4, "dtype": "float32"},
        ),
        "bestofn": ("bestofn", judged, short | {"batch_size": 2, "answers": 3, "write_batch": 6}),
    }


def launch(
    *command: str, config: str = "cpu.yaml", options: Sequence[str] = (), timeout: int = 120
) -> subprocess.CompletedProcess[str]:
    """A command in two processes, as accelerate's own launcher starts them."""
    return subprocess.run(
        accelerate(*options, *command, config=config), cwd=ROOT, env=environment(),
        timeout=timeout, text=True, capture_output=True, check=False,
    )  # fmt: skip


def accelerate(*command: str, config: str = "cpu.yaml") -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*launcher, "--config_file", str(CONFIGS / config), *command]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def pairs_of_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Every stage by one process, here, and by two."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = specs(folder)
    found = {}
    for name, (stage, inputs, config) in wanted.items():
        alone, together = (
            make_run(folder / f"{name} {n}", stage, inputs, **config) for n in ("one", "two")
        )
        with warnings.catch_warnings():
            # TRL and peft ask transformers by names that are going away.
            warnings.simplefilter("ignore", FutureWarning)
            run_here(alone)
        found[name] = (alone, together)
    folders = [str(together) for _, together in found.values()]
    done = launch("-m", "tests.trainer.together", *folders)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("name", STAGES)
def test_two_processes_learn_what_one_does(
    name: str, pairs_of_runs: dict[str, tuple[Path, Path]]
) -> None:
    alone, together = (events_of(folder, "metric") for folder in pairs_of_runs[name])
    assert [event["step"] for event in alone] == [event["step"] for event in together]
    assert len(alone) >= 2
    # Short answers may all score alike; a run of such steps alone would learn nothing in any way.
    assert any(event.get("grad_norm", 1.0) > 0 for event in alone)
    for one, two in zip(alone, together, strict=True):
        for figure, value in one.items():
            if isinstance(value, float) and figure not in OTHER and "seconds" not in figure:
                assert two[figure] == pytest.approx(value, rel=1e-5, abs=1e-5), (figure, one, two)


def test_two_processes_read_a_base_as_deep_as_one_does(
    pairs_of_runs: dict[str, tuple[Path, Path]],
) -> None:
    alone, together = (
        json.loads((folder / "out" / "report.json").read_text())["layers"]
        for folder in pairs_of_runs["reward deep"]
    )
    assert alone == together < 10  # of 6, 8 and 10


@pytest.mark.parametrize("name", STAGES)
def test_one_of_two_processes_writes(
    name: str, pairs_of_runs: dict[str, tuple[Path, Path]]
) -> None:
    alone, together = pairs_of_runs[name]
    assert verify_manifest(together / "out") == []
    assert len(events_of(together, "started")) == 1
    assert len(events_of(together, "finished")) == 1
    kept = [
        sorted(path.name for path in (one / "checkpoints").glob("*")) for one in (alone, together)
    ]
    assert kept[0] == kept[1]
    names = [sorted(path.name for path in (one / "out").iterdir()) for one in (alone, together)]
    assert names[0] == names[1]


def test_a_signal_to_the_launcher_stops_both_at_one_step(tmp_path: Path) -> None:
    wanted = specs(tmp_path)
    stage, inputs, config = wanted["reward"]
    longer = config | {"epochs": 400, "checkpoint_every": 10_000}
    run = make_run(tmp_path / "run", stage, inputs, **longer)
    with subprocess.Popen(
        accelerate("-m", "trainer", "run", str(run)), cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not events_of(run, "metric") and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0  # torch's launcher has no word for "stopped"
    (stopped,) = events_of(run, "stopped")
    last = max(event["step"] for event in events_of(run, "metric"))
    assert f"after {last} of" in stopped["message"]
    (kept,) = (run / "checkpoints").iterdir()
    assert kept.name == f"step_{last}"
    assert verify_manifest(kept) == []


# --- alone, and pieces ----------------------------------------------------------------------------


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


def test_alone_nothing_is_shared() -> None:
    assert (ranks.rank(), ranks.world(), ranks.is_main()) == (0, 1, True)
    assert distributed.own([1, 2, 3]) == [1, 2, 3]
    assert distributed.gather([1, 2]) == [1, 2]
    assert distributed.sums([1.5]) == [1.5]
    assert distributed.from_main(lambda: 7) == 7


def test_a_cluster_s_word_without_a_rank_is_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.delenv("RANK", raising=False)
    assert ranks.world() == 1


@pytest.mark.usefixtures("second_of_two")
def test_the_second_process_has_every_other_item_and_writes_nothing(tmp_path: Path) -> None:
    assert distributed.own([0, 1, 2, 3, 4]) == [1, 3]
    assert not ranks.is_main()


@pytest.mark.usefixtures("second_of_two")
def test_what_was_dealt_out_comes_back_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather_object(parts: list[Any], own: list[int]) -> None:
        parts[:] = [[0, 2, 4], own]

    monkeypatch.setattr(distributed.dist, "all_gather_object", all_gather_object)
    assert distributed.gather(distributed.own([0, 1, 2, 3, 4])) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("second_of_two")
def test_gradients_are_added_and_whoever_has_none_adds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three weights: one that both learned, one that the other process did, one that nobody did."""
    theirs = iter([torch.tensor([1.0, 1.0, 0.0]).double(), torch.tensor([10.0, 20.0, 30.0])])
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda tensor: tensor.add_(next(theirs)))
    both, other, nobody = (torch.nn.Parameter(torch.zeros(size)) for size in (2, 1, 1))
    both.grad = torch.tensor([1.0, 2.0])
    distributed.sum_gradients([both, other, nobody])
    assert both.grad.tolist() == [11.0, 22.0]
    assert other.grad is not None
    assert other.grad.tolist() == [30.0]
    assert nobody.grad is None


def test_several_gradients_are_clipped_to_one_norm() -> None:
    one, other = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    one.grad, other.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert distributed.clip_gradients([one, other], math.inf) == 5.0
    assert (one.grad.item(), other.grad.item()) == (3.0, 4.0)
    assert distributed.clip_gradients([one, other], 1.0) == 5.0
    assert (one.grad.item(), other.grad.item()) == pytest.approx((0.6, 0.8), abs=1e-5)


@pytest.mark.usefixtures("second_of_two")
@pytest.mark.parametrize(
    ("stage", "wish", "sentence"),
    [
        ("sft", "FSDP", "cannot be launched with weights that are split"),
        ("reward", "FSDP", "cannot be launched with weights that are split"),  # an adapter
        ("pretrain", "DEEPSPEED", "cannot be launched with weights that are split by DeepSpeed"),
        ("sft", "DEEPSPEED", "cannot be launched with weights that are split by DeepSpeed"),
    ],
)
def test_split_weights_are_refused_by_name(
    stage: str,
    wish: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage, inputs, config = specs(tmp_path)[stage]
    run = make_run(tmp_path / "run", stage, inputs, **config)
    monkeypatch.setenv(f"ACCELERATE_USE_{wish}", "true")
    assert main(["run", str(run)]) == 1
    assert sentence in capsys.readouterr().err
    assert not (run / "events.jsonl").exists()  # the first process says it


@pytest.mark.usefixtures("second_of_two")
def test_without_deepspeed_its_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, inputs, config = specs(tmp_path)["sft"]
    run = make_run(tmp_path / "run", stage, inputs, **config | {"method": "full"})
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["run", str(run)]) == 1
    assert "DeepSpeed is not installed" in capsys.readouterr().err


@pytest.mark.usefixtures("second_of_two")
def test_deepspeed_s_pieces_are_flat_and_the_last_is_filled_up() -> None:
    whole = torch.tensor([[1.0], [2.0], [3.0]])
    assert distributed.own_piece(whole, 2).tolist() == [3.0, 0.0]


@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    stage, inputs, config = specs(tmp_path)["reward"]
    run = make_run(tmp_path / "run", stage, inputs, **config | {"epochs": 10_000})
    with subprocess.Popen(
        accelerate("-m", "trainer", "run", str(run)), cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not events_of(run, "metric") and time.monotonic() < until:
            time.sleep(0.1)
        (started,) = events_of(run, "started")
        assert Path(f"/proc/{started['pid']}").exists()
        process.kill()
        process.wait(10)
    until = time.monotonic() + 10
    while alive(started["pid"]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(started["pid"])


def alive(pid: int) -> bool:
    """Whether the process is there and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_wish_to_stop_waits_until_all_know_it() -> None:
    stop = ranks.AgreedStop()
    assert isinstance(stop, threading.Event)
    stop.set()
    assert not stop.is_set()
    stop.agree(lambda wish: wish)
    assert stop.is_set()


def test_numbers_of_several_processes_need_whole_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.config import SFTConfig
    from trainer.events import RunError
    from trainer.trl_loop import micro_batch

    assert micro_batch(SFTConfig(batch_size=8)) == 8
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert micro_batch(SFTConfig(batch_size=8)) == 4
    with pytest.raises(RunError, match=r"batch_size \(9\) .* times the 2 processes"):
        micro_batch(SFTConfig(batch_size=9))


# --- accelerate's configurations ------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path: Path) -> None:
    found = load_config_from_file(str(path))  # refuses keys that it does not know
    body = yaml.safe_load(path.read_text())
    assert found.num_processes == body["num_processes"] >= 2
    assert found.mixed_precision == body["mixed_precision"]
    assert math.isfinite(found.machine_rank)
    assert json.dumps(found.to_dict(), default=str)
