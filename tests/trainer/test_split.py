"""Weights split over two processes learn what whole ones do (FSDP2), and come out whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from tests.tiny import make_tiny
from tests.trainer.judging import events_of, from_checkpoint, make_run, run_here
from tests.trainer.test_distributed import OTHER, launch, specs
from trainer import distributed, memory, sharding
from trainer.config import load_spec
from trainer.manifests import folder_hash, verify_manifest

LOADERS: dict[str, Any] = {
    "reward": AutoModelForSequenceClassification,
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each run by one process (“one”) and by two (“two”), those again from their first checkpoint
    on, and one that one process began and two went on with (“taken over”).
    """
    folder = tmp_path_factory.mktemp("split")
    wanted = specs(folder)
    _, inputs, config = wanted["reward"]
    kept = {"checkpoint_every": 1, "keep_checkpoints": 9}
    # three rankings a step: of the last step's two one process has both, in two passes
    reward = config | kept | {"lora": False, "token_budget": 64}
    _, text, plan = wanted["pretrain"]
    pretrain = plan | kept | {"sample_every": 2, "sample_tokens": 4, "measure_every": 2}
    given = {
        "reward": ("reward", inputs, reward),
        "causal": ("pretrain", text, pretrain),
        "masked": ("pretrain", text, pretrain | {"objective": "masked"}),
    }
    together = []
    for name, (stage, data, settings) in given.items():
        for number in ("one", "two"):
            make_run(folder / f"{name} {number}", stage, data, **settings)
        run_here(folder / f"{name} one")
        from_checkpoint(folder / f"{name} one", folder / f"{name} taken over", step=1)
        together += [f"{name} two", f"{name} two again", f"{name} taken over"]
    folders = [str(folder / name) for name in together]
    done = launch(
        "-m", "tests.trainer.together", *folders, config="fsdp2.yaml", options=["--num_processes=2"]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "split"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_split_weights_learn_what_whole_ones_do(name: str, runs: Path) -> None:
    alone, together = (events_of(runs / f"{name} {n}", "metric") for n in ("one", "two"))
    assert [event["step"] for event in alone] == [event["step"] for event in together]
    for one, two in zip(alone, together, strict=True):
        for figure, value in one.items():
            if isinstance(value, float) and figure not in OTHER:
                assert two[figure] == pytest.approx(value, rel=1e-5, abs=1e-5), (figure, one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_what_comes_out_is_a_plain_whole_model(name: str, runs: Path) -> None:
    one, two = (runs / f"{name} {n}" / "out" for n in ("one", "two"))
    assert verify_manifest(two) == []
    models = [LOADERS[name].from_pretrained(path, dtype="auto") for path in (one, two)]
    ids = torch.arange(8)[None]
    with torch.no_grad():
        wanted, found = (model(input_ids=ids).logits for model in models)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, two)]
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_a_checkpoint_holds_whole_tensors_by_the_same_names(name: str, runs: Path) -> None:
    one, two = (
        load_file(runs / f"{name} {n}" / "checkpoints/step_2/state.safetensors")
        for n in ("one", "two")
    )
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_a_resumed_split_run_is_the_undisturbed_one_bit_for_bit(name: str, runs: Path) -> None:
    undisturbed, resumed = (runs / f"{name} {n}" for n in ("two", "two again"))
    assert events_of(resumed, "started")[0]["resumed_from"] == 1
    last = max(event["step"] for event in events_of(resumed, "metric"))
    for part in (f"checkpoints/step_{last}", "out"):
        assert folder_hash(resumed / part) == folder_hash(undisturbed / part)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_two_processes_go_on_with_what_one_began_and_the_other_way_round(
    name: str, runs: Path, tmp_path: Path
) -> None:
    back = from_checkpoint(runs / f"{name} two", tmp_path / "back", step=1)
    run_here(back)
    alone = events_of(runs / f"{name} one", "metric")
    for folder in (runs / f"{name} taken over", back):
        found = events_of(folder, "metric")
        assert [event["step"] for event in found] == [event["step"] for event in alone[1:]]
        for one, other in zip(alone[1:], found, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)


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
