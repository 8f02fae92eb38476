"""Weights split over two processes learn what whole ones do (FSDP2, and ZeRO-3 where DeepSpeed is
installed), and come out whole.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from tests.tiny import make_tiny
from tests.trainer.judging import events_of, first_step, from_checkpoint, make_run, run_here
from tests.trainer.test_distributed import OTHER, launch, specs
from trainer import distributed, memory, ranks, sharding
from trainer.config import load_spec
from trainer.manifests import folder_hash, verify_manifest

LOADERS: dict[str, Any] = {
    "reward": AutoModelForSequenceClassification,
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "sft": AutoModelForCausalLM,
    "freeze": AutoModelForCausalLM,
    "dpo": AutoModelForCausalLM,
    "rloo": AutoModelForCausalLM,
    "bestofn": AutoModelForCausalLM,
}
#: what learns by transformers' Trainer, which knows DeepSpeed
BY_TRANSFORMERS = ("sft", "freeze", "dpo", "rloo", "bestofn")
pytestmark = pytest.mark.timeout(600)  # the first test of a configuration waits for all its runs
needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed (docs/scaling.md)"
)
#: each configuration with the runs that it can split
everywhere = pytest.mark.parametrize(
    ("runs", "name"),
    [("fsdp2.yaml", name) for name in LOADERS]
    + [pytest.param("zero3.yaml", name, marks=needs_deepspeed) for name in BY_TRANSFORMERS],
    indirect=["runs"],
)
NUMBERS = ("one", "two")
#: TRL takes the mean of micro batches, which hold other rows when there are two processes
BY_MICRO_BATCH = "token_accuracy"
WRITER = "policy that writes"
FREEZE = {"method": "freeze", "train_layers": 1}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """All runs under a configuration, made when they are first asked for."""
    found: dict[str, Path] = {}

    def get(config: str) -> Path:
        if config not in found:
            found[config] = run_all(tmp_path_factory.mktemp("split"), config)
        return found[config]

    return get


@pytest.fixture
def runs(request: pytest.FixtureRequest, launched: Callable[[str], Path]) -> Path:
    """The runs under the configuration that a test is for."""
    return launched(request.param)


def run_all(folder: Path, configuration: str) -> Path:
    """Each run by one process (“one”) and by two (“two”), those again from their first checkpoint
    on, and one that one process began and two went on with (“taken over”).
    """
    wanted = specs(folder)
    _, inputs, config = wanted["reward"]
    kept = {"checkpoint_every": 1, "keep_checkpoints": 9}
    # three rankings a step: of the last step's two one process has both, in two passes
    reward = config | kept | {"lora": False, "token_budget": 64}
    _, text, plan = wanted["pretrain"]
    pretrain = plan | kept | {"sample_every": 2, "sample_tokens": 4, "measure_every": 2}
    tied = make_tiny(folder / "tied", tie_word_embeddings=True)
    _, pairs, sft = wanted["sft"]
    pairs |= {"heldout": pairs["pairs"]}
    steps = kept | {"micro_batch_size": 1}  # two micro batches a process
    _, ranked, dpo = wanted["dpo"]
    _, judged, rloo = wanted["rloo"]
    _, _, best = wanted["bestofn"]
    given = {
        "sft": ("sft", pairs, sft | steps | {"method": "full", "activation_checkpointing": True}),
        "freeze": ("sft", pairs | {"base": tied}, sft | steps | FREEZE),
        "dpo": (
            "prefer",
            ranked | {"policy": tied, "heldout": ranked["rankings"]},
            dpo | steps | {"lora": False, "batch_size": 4},
        ),
        # with the default rate what is nothing but rounding would move weights by as much
        "rloo": ("prefer", judged, rloo | kept | {"lora": False, "lr": 1e-5}),
        "bestofn": ("bestofn", judged, best | kept | {"lora": False}),
        "reward": ("reward", inputs, reward),
        "causal": ("pretrain", text, pretrain),
        "masked": ("pretrain", text, pretrain | {"objective": "masked"}),
    }
    together = []
    for name, (stage, data, settings) in given.items():
        if configuration == "zero3.yaml" and name not in BY_TRANSFORMERS:
            continue
        for number in NUMBERS:
            make_run(folder / f"{name} {number}", stage, data, **settings)
        one = folder / f"{name} one"
        run_quietly(one)
        from_checkpoint(one, folder / f"{name} taken over", step=first_step(one))
        together += [f"{name} two", f"{name} two again", f"{name} taken over"]
    folders = [str(folder / name) for name in together]
    done = launch(
        "-m", "tests.trainer.together", *folders, config=configuration,
        options=["--num_processes=2"], timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    split = json.loads(done.stdout.splitlines()[-1])  # DeepSpeed has said other things before
    assert split.keys() == set(together)
    assert all(split.values()), split
    return folder


def run_quietly(folder: Path) -> None:
    """The run in this process, where TRL asks transformers by names that are going away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        run_here(folder)


@pytest.mark.slow
@everywhere
def test_split_weights_learn_what_whole_ones_do(name: str, runs: Path) -> None:
    alone, together = (events_of(runs / f"{name} {n}", "metric") for n in NUMBERS)
    assert [event["step"] for event in alone] == [event["step"] for event in together]
    for one, two in zip(alone, together, strict=True):
        for figure, value in one.items():
            if isinstance(value, float) and figure not in OTHER | {BY_MICRO_BATCH}:
                assert two[figure] == pytest.approx(value, rel=1e-5, abs=1e-5), (figure, one, two)


@pytest.mark.slow
@everywhere
def test_what_comes_out_is_a_plain_whole_model(name: str, runs: Path) -> None:
    one, two = (runs / f"{name} {n}" / "out" for n in NUMBERS)
    assert verify_manifest(two) == []
    models = [LOADERS[name].from_pretrained(path, dtype="auto") for path in (one, two)]
    ids = torch.arange(8)[None]
    with torch.no_grad():
        wanted, found = (model(input_ids=ids).logits for model in models)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, two)]
    assert names[0] == names[1]


@pytest.mark.slow
@everywhere
def test_a_checkpoint_holds_whole_tensors_by_the_same_names(name: str, runs: Path) -> None:
    step = first_step(runs / f"{name} one") + 1
    one, two = (
        load_file(runs / f"{name} {n}" / f"checkpoints/step_{step}/state.safetensors")
        for n in NUMBERS
    )
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        if key != "random":  # that of process 0, which wrote half of the answers
            torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@everywhere
def test_a_resumed_split_run_is_the_undisturbed_one_bit_for_bit(name: str, runs: Path) -> None:
    undisturbed, resumed = (runs / f"{name} {n}" for n in ("two", "two again"))
    assert events_of(resumed, "started")[0]["resumed_from"] == first_step(resumed)
    last = max(event["step"] for event in events_of(resumed, "metric"))
    state = f"checkpoints/step_{last}/state.safetensors"
    assert (resumed / state).read_bytes() == (undisturbed / state).read_bytes()
    assert folder_hash(resumed / "out") == folder_hash(undisturbed / "out")


@pytest.mark.slow
@everywhere
def test_two_processes_go_on_with_what_one_began_and_the_other_way_round(
    name: str, runs: Path, tmp_path: Path
) -> None:
    begun = first_step(runs / f"{name} two")
    back = from_checkpoint(runs / f"{name} two", tmp_path / "back", step=begun)
    run_quietly(back)
    rest = [one for one in events_of(runs / f"{name} one", "metric") if one["step"] > begun]
    for folder in (runs / f"{name} taken over", back):
        found = events_of(folder, "metric")
        assert [event["step"] for event in found] == [event["step"] for event in rest]
        for one, other in zip(rest, found, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)


@pytest.mark.slow
@everywhere
def test_both_reports_say_the_same(name: str, runs: Path) -> None:
    one, two = (json.loads((runs / f"{name} {n}/out/report.json").read_text()) for n in NUMBERS)
    assert one.keys() == two.keys()
    for figure, value in one.items():
        if isinstance(value, float) and "seconds" not in figure:
            assert two[figure] == pytest.approx(value, rel=1e-4, abs=1e-5), figure


def test_split_weights_need_less_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, inputs, config = specs(tmp_path)["reward"]
    folder = make_run(tmp_path / "run", stage, inputs, **config | {"lora": False})
    spec = load_spec(folder)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")

    def bytes_of(word: str) -> int:
        found = memory.estimate(spec, folder, "float32", "cpu")
        return sum(part.bytes for part in found.parts if word in part.name)

    weights = bytes_of("base")
    moments = bytes_of("gradient and moments")
    assert moments == 3 * weights
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert bytes_of("gradient, moments") == pytest.approx((weights + moments) / 8, abs=1)


@pytest.mark.parametrize(
    ("name", "change", "held"),
    [
        ("sft", {"method": "full"}, 4 + 12),  # the weight, its gradient, its moments
        ("sft", {"method": "freeze", "train_layers": 1}, 4 + 12 / 2),  # one layer of two
        ("dpo", {"lora": False}, 4 + 12 + 4),  # and the reference
        ("rloo", {"lora": False}, 4 + 12 + 4),
        ("bestofn", {"lora": False}, 4 + 12),
    ],
)
def test_of_what_learns_split_each_process_holds_its_share(
    name: str,
    change: dict[str, Any],
    held: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, inputs, config = specs(tmp_path)[name]
    folder = make_run(tmp_path / "run", stage, inputs, **config | change)
    spec = load_spec(folder)
    assert spec.config.can_split
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    found = memory.estimate(spec, folder, "float32", "cpu")
    parts = sum(part.bytes for part in found.parts if part.name.startswith("part of the"))
    role = "base" if stage == "sft" else "policy"
    weights = memory.read_network(Path(spec.inputs[role])).parameters
    assert parts == pytest.approx(weights * held / 8, abs=2)
    whole = [part for part in found.parts if not part.phase and part.bytes >= 4 * weights]
    # what is not split and there all the time, the policy that only writes among it
    there = {"libraries", "numba and what it compiled", "reward model", "policy", WRITER}
    assert {part.name for part in whole} <= there


def test_a_file_of_fsdp_s_first_version_or_other_wishes_splits_as_ours_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wishes = {
        "FSDP_VERSION": "1",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
        "FSDP_OFFLOAD_PARAMS": "true",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "BertLayer",
        "RANK": "0",
        "WORLD_SIZE": "2",
    }
    for name in wishes.keys() | ranks.FSDP.keys():
        monkeypatch.setenv(name, wishes.get(name, ""))
    ranks.settle_splitting()
    assert os.environ["FSDP_VERSION"] == "1"  # without the wish to split nothing is touched
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    ranks.settle_splitting()
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert not isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    assert not plugin.cpu_ram_efficient_loading
    assert not plugin.activation_checkpointing
    assert plugin.transformer_cls_names_to_wrap is None


def test_a_file_of_deepspeed_s_other_stages_or_wishes_splits_as_ours_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wishes = {
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": "mine.json",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "RANK": "0",
        "WORLD_SIZE": "2",
    }
    for name in wishes.keys() | ranks.ZERO.keys():
        monkeypatch.setenv(name, wishes.get(name, ""))
    ranks.settle_splitting()
    assert os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert os.environ["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] == "none"
    assert "ACCELERATE_DEEPSPEED_CONFIG_FILE" not in os.environ


@pytest.fixture
def only_process() -> Iterator[None]:
    """A group of one process, in which a part is the whole."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("only_process")
def test_what_is_split_and_what_stays_whole(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path, tie_word_embeddings=True))
    tied, learned = model.lm_head.weight, dict(model.named_parameters())
    before = {name: one.detach().clone() for name, one in learned.items()}
    optimizer = torch.optim.AdamW([learned[name] for name in reversed(learned)])
    sharding.split(model, optimizer, [learned])
    whole = [name for name, one in learned.items() if not distributed.is_split(one)]
    assert whole == ["model.embed_tokens.weight"]  # the head shares it
    assert learned[whole[0]] is tied
    assert optimizer.param_groups[0]["params"] == list(reversed(learned.values()))
    plain = sharding.join(model, optimizer, [learned])
    assert type(plain) is type(model)
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    assert all(learned[name] is one for name, one in plain.named_parameters())
    for name, one in plain.named_parameters():
        assert torch.equal(one, before[name])
        assert one.requires_grad
        assert not distributed.is_split(one)


@pytest.mark.usefixtures("only_process")
def test_the_norm_counts_parts_and_whole_gradients_together() -> None:
    mesh = init_device_mesh("cpu", (1,))
    part = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Shard(0)]))
    part.grad = distribute_tensor(torch.tensor([2.0, 3.0]), mesh, [Shard(0)])
    whole = nn.Parameter(torch.zeros(1))
    whole.grad = torch.tensor([6.0])
    assert distributed.clip_gradients([part, whole], 3.5) == 7.0  # √(4 + 9 + 36)
    found = torch.cat([part.grad.full_tensor(), whole.grad])
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5, 3.0]))
