"""A wide key-value cache, with a prompt for each answer or once for all: nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from transformers import PreTrainedModel

from tests.tiny import make_tiny
from trainer import cache, kernels, modeling, packing, placement, rollout
from trainer.blocks import lean_throughout

CPU = placement.Placement(torch.device("cpu"), torch.float32)
PROMPTS = [[3, 6, 7, 8, 1, 4], [3, 9, 1, 4]]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return modeling.load_policy(make_tiny(tmp_path_factory.mktemp("models")), CPU)


@pytest.fixture(params=["repeated", "shared"])
def writer(request: pytest.FixtureRequest, policy: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model as it is, and with blocks that can attend to prompts apart."""
    shares = request.param == "shared"
    if shares and not kernels.can_pack(policy.lm_head.weight):
        pytest.skip("this machine has no packed products")
    with packing.packed(policy) if shares else nullcontext(policy) as model:
        assert lean_throughout(model) == shares
        yield model


@pytest.mark.parametrize("new", [1, cache.ROOM + 5])
@pytest.mark.parametrize("many", [[1, 2], [2, 2]])
def test_a_wide_cache_gives_what_reading_the_whole_text_gives(
    writer: PreTrainedModel, many: list[int], new: int
) -> None:
    """The mask hides the places that are not filled, also when the cache has grown or rows left."""
    logits, known, read = rollout._read_prompts(writer, PROMPTS, pad=0)
    if lean_throughout(writer):
        rows = [0] * many[0] + [1] * many[1]
        cache.share_prompts(known, torch.tensor(rows))
    else:
        rows = [1, 0, 1]
        cache.repeat_rows(known, torch.tensor(rows))
    texts = [list(PROMPTS[row]) for row in rows]
    mask = torch.nn.functional.pad(read, (0, new + 1), value=1)[rows]

    def go_on(n: int) -> torch.Tensor:
        token = torch.tensor([[6 + (7 * n + row) % 40] for row in range(len(texts))])
        place = torch.tensor([[len(text)] for text in texts])
        for text, one in zip(texts, token.tolist(), strict=True):
            text += one
        seen = mask[:, : read.shape[1] + n + 1]
        found: torch.Tensor = rollout._next_logits(writer, token, seen, place, known)
        return found

    def check(found: torch.Tensor) -> None:
        for row, text in enumerate(texts):
            whole = writer(input_ids=torch.tensor([text])).logits[0, -1]
            torch.testing.assert_close(found[row], whole, rtol=1e-3, atol=1e-4)

    check(logits[rows])
    for n in range(new):
        found = go_on(n)
    check(found)
    # one leaves (where prompts are shared, the last of its prompt) and the others change places
    cache.keep_rows(known, torch.tensor([2, 1]))
    mask, texts = mask[[2, 1]], [texts[2], texts[1]]
    check(go_on(new))


def test_a_prompt_goes_when_many_would_go_with_it() -> None:
    at, stay = cache.fewer_prompts(torch.tensor([0, 3, 2]), 4)  # a quarter of them is not needed
    assert stay is not None
    assert (at.tolist(), stay.tolist()) == ([0, 2, 1], [0, 2, 3])
    same, none = cache.fewer_prompts(torch.tensor([0, 3, 2, 4]), 5)  # a fifth is not worth a copy
    assert none is None
    assert same.tolist() == [0, 3, 2, 4]


def test_a_shared_prompt_is_there_once(policy: PreTrainedModel) -> None:
    _, known, _ = rollout._read_prompts(policy, PROMPTS, pad=0)
    cache.share_prompts(known, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    for layer in known.layers:
        assert len(layer.prompt_keys) == len(layer.prompt_values) == 2
        assert len(layer.keys) == len(layer.values) == 8
        assert layer.values.shape[2] == cache.ROOM


def test_a_layer_with_prompts_apart_takes_no_tokens_otherwise(policy: PreTrainedModel) -> None:
    _, known, _ = rollout._read_prompts(policy, PROMPTS, pad=0)
    cache.share_prompts(known, torch.tensor([0, 1]))
    with pytest.raises(NotImplementedError, match="lean blocks alone"):
        known.update(torch.zeros(2, 1, 1, 8), torch.zeros(2, 1, 1, 8), 0)


def test_rows_that_stay_move_little() -> None:
    assert cache.close_ranks([True, False, True, False, True]) == [0, 4, 2]
    assert cache.close_ranks([False, False, True]) == [2]
    assert cache.close_ranks([True, True]) == [0, 1]
