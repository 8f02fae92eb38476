"""What stages on TRL's trainers share: no head for what predicts nothing, little padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from trl.trainer import utils
from trl.trainer.utils import add_fused_lm_head

from tests.tiny import make_tiny
from trainer import trl_loop
from trainer.trl_loop import narrow_head, narrowed, parts_of
from trainer.types import IGNORED

#: two rows, of which the first is padded; the answers begin at the third token and at the second
IDS = torch.tensor([[5, 6, 7, 8, 0, 0], [9, 8, 7, 6, 5, 4]])
LABELS = torch.tensor(
    [[IGNORED, IGNORED, 7, 8, IGNORED, IGNORED], [IGNORED, 8, 7, 6, 5, 4]]
)  # fmt: skip
INPUTS = {"input_ids": IDS, "attention_mask": (IDS > 0).long()}


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(make_tiny(tmp_path)))


def fused(model: Any, labels: Tensor = LABELS) -> tuple[Any, int]:
    """What TRL's head says, and the multiplications that it took."""
    with FlopCounterMode(display=False) as counter:
        outputs = model(**INPUTS, labels=labels, fused_lm_head=True)
    return outputs, counter.get_total_flops()


def test_the_narrowed_head_says_the_same_of_every_answer_and_computes_less(model: Any) -> None:
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    whole, most = fused(model)
    whole.log_probs.sum().backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad()
    narrow_head(model)
    narrow, least = fused(model)
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        assert torch.allclose(getattr(narrow, name), getattr(whole, name), atol=1e-6), name
    narrow.log_probs.sum().backward()
    for name, one in model.named_parameters():
        assert torch.allclose(one.grad, gradients[name], atol=1e-5), name
    # Of ten states, seven predict a token of an answer; a product is two operations a number.
    head = model.lm_head.weight.numel()
    assert most - least == 3 * 2 * head


def test_the_vocabulary_is_taken_in_smaller_tiles_with_the_same_result(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 words in tiles of 16: the figures are folded from tile to tile."""
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE >= 4096  # TRL still has it by this name
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 32768)
    monkeypatch.setattr(trl_loop, "TILE", 16)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    whole, _ = fused(model)
    narrow_head(model)
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE == 16
    tiled, _ = fused(model)
    for name in ("log_probs", "entropy", "is_top1"):
        assert torch.allclose(getattr(tiled, name), getattr(whole, name), atol=1e-6), name


def test_without_an_answer_and_without_a_wish_for_it_nothing_is_narrowed(model: Any) -> None:
    logits = model(**INPUTS).logits.detach()
    add_fused_lm_head(model)
    narrow_head(model)
    assert torch.equal(model(**INPUTS).logits, logits)
    nothing, _ = fused(model, torch.full_like(LABELS, IGNORED))
    assert nothing.log_probs.tolist() == [[0.0] * 5] * 2
    loss = model(**INPUTS, labels=LABELS).loss.detach()
    following, mask = LABELS[:, 1:], LABELS[:, 1:] != IGNORED
    assert float(loss) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits[:, :-1][mask], following[mask])), abs=1e-5
    )


def test_within_the_head_gets_the_states_before_the_answers_alone(model: Any) -> None:
    whole = model(**INPUTS).logits
    with narrowed(model.base_model, LABELS[:, 1:] != IGNORED):
        some = model(**INPUTS).logits
    wanted = torch.cat([whole[0, 1:3], whole[1, 0:5]])
    assert torch.allclose(some[0], wanted, atol=1e-6)
    assert torch.equal(model(**INPUTS).logits, whole)


def test_rows_of_like_length_go_together_as_wide_as_the_longest() -> None:
    """Lengths 4 and 6 are more than 8 tokens when padded to 8, one row alone never is."""
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 3 + [0] * 3])
    inputs = {"input_ids": torch.arange(18).view(3, 6), "attention_mask": mask}
    parts = parts_of(inputs, 16)
    assert [part["input_ids"].tolist() for part in parts] == [
        [[12, 13, 14, 15], [6, 7, 8, 9]],
        [[0, 1, 2, 3, 4, 5]],
    ]
    assert [part["attention_mask"].shape for part in parts] == [(2, 4), (1, 6)]
    assert [len(part["input_ids"]) for part in parts_of(inputs, 8)] == [1, 1, 1]
    assert len(parts_of(inputs, 24)) == 1
