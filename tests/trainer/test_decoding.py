"""Compiled attention of one new token: what the plain formula gives, for every shape and format."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer import decoding, kernels

FORMATS = [torch.float32, torch.bfloat16]
#: what transformers puts where nothing may be attended to
HIDDEN = torch.finfo(torch.float32).min


class Case(NamedTuple):
    """One step of some answers; keys and values as they are before it, (n, kv, t, d)."""

    heads: Tensor
    turns: tuple[Tensor, Tensor]
    mask: Tensor
    prompt_keys: Tensor
    prompt_values: Tensor
    prompt_of: Tensor
    keys: Tensor
    values: Tensor
    place: int


def case(
    form: torch.dtype = torch.float32,
    *,
    h: int = 6,
    kv: int = 2,
    d: int = 8,
    padding: tuple[int, ...] = (0, 18),
    far: int = 21,
    prompt_of: tuple[int, ...] = (0, 0, 1, 0, 1, 1, 1),
    place: int = 5,
) -> Case:
    """Random numbers; the prompts have so many columns of padding on the left."""
    torch.manual_seed(0)
    b, room = len(prompt_of), (place // 32 + 1) * 32
    mask = torch.zeros(b, far + room)
    mask[:, far + place + 1 :] = HIDDEN
    for row, prompt in enumerate(prompt_of):
        mask[row, : padding[prompt]] = HIDDEN
    keys, values = torch.zeros(b, kv, room, d), torch.zeros(b, kv, room, d)
    keys[:, :, :place], values[:, :, :place] = torch.randn(2, b, kv, place, d)
    angle = torch.rand(b, d // 2).repeat(1, 2) * 6
    return Case(
        torch.randn(b, h + 2 * kv, d).to(form),
        (angle.cos().to(form), angle.sin().to(form)),
        mask,
        *torch.randn(2, len(padding), kv, far, d).to(form),
        torch.tensor(prompt_of),
        keys.to(form),
        values.to(form),
        place,
    )


def attend(one: Case) -> tuple[Tensor, Tensor, Tensor]:
    """What comes out, and the answers' keys and values afterwards, (b, kv, T, d)."""
    d = one.heads.shape[2]
    keys, values = decoding.blocks(one.keys), decoding.lines(one.values)
    prompts = decoding.blocks(one.prompt_keys), decoding.lines(one.prompt_values), one.prompt_of
    out = decoding.attend(
        one.heads, one.turns, one.mask, prompts, (keys, values), one.place, d**-0.5
    )
    return out, keys.transpose(3, 4).flatten(2, 3)[..., :d], values[..., :d]


def plainly(one: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The same in single operations, in double precision."""
    heads, cos, sin = (x.double() for x in (one.heads, *one.turns))
    b, _, d = heads.shape
    kv = one.keys.shape[1]
    h = heads.shape[1] - 2 * kv
    other = torch.cat([-heads[..., d // 2 :], heads[..., : d // 2]], dim=-1)
    turned = heads * cos[:, None] + other * sin[:, None]
    keys, values = one.keys.double(), one.values.double()
    keys[:, :, one.place], values[:, :, one.place] = turned[:, h : h + kv], heads[:, h + kv :]
    every_key = torch.cat([one.prompt_keys.double()[one.prompt_of], keys], dim=2)
    every_value = torch.cat([one.prompt_values.double()[one.prompt_of], values], dim=2)
    scores = turned[:, :h].view(b, kv, h // kv, d) @ every_key.transpose(2, 3) * d**-0.5
    weights = (scores + one.mask.double()[:, None, None]).softmax(-1)
    return (weights @ every_value).view(b, h, d), keys, values


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"h": 9, "kv": 3, "d": 64, "far": 48, "place": 31},
        {"h": 7, "kv": 1, "d": 80, "place": 32},
        {"h": 4, "kv": 4, "d": 16, "far": 1, "padding": (0, 0), "place": 0},
        {"h": 8, "kv": 2, "padding": (3,), "prompt_of": (0,) * 19, "place": 47},
        {"h": 5, "kv": 1, "padding": (2, 0, 20), "prompt_of": (2, 1, 0), "place": 15},
    ],
)
def test_attention_of_one_token_is_the_plain_formula(
    form: torch.dtype, shape: dict[str, Any]
) -> None:
    one = case(form, **shape)
    slack = {"rtol": 1e-5, "atol": 1e-5} if form == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    for found, wanted in zip(attend(one), plainly(one), strict=True):
        assert found.dtype == form
        torch.testing.assert_close(found.double(), wanted, **slack)


def test_attention_worked_by_hand() -> None:
    """One head of two numbers, not turned; scores are 1/√2 times the keys' first numbers."""
    keys, values = torch.zeros(2, 1, 1, 32, 2)
    keys[0, 0, 0], values[0, 0, 0] = torch.tensor([math.log(2) * math.sqrt(2), 9.0]), 7.0
    one = Case(
        torch.tensor([[[1.0, 0.0], [math.log(3) * math.sqrt(2), 5.0], [1.0, 2.0]]]),
        (torch.ones(1, 2), torch.zeros(1, 2)),
        torch.cat([torch.zeros(1, 3), torch.full((1, 30), HIDDEN)], dim=1),
        torch.tensor([[[[0.0, 3.0]]]]),
        torch.tensor([[[[4.0, 10.0]]]]),
        torch.tensor([0]),
        keys,
        values,
        1,
    )
    out, kept, _ = attend(one)
    # weights 1 : 2 : 3 of the prompt's token, the answer's first and the new one
    first, second = (4 + 2 * 7 + 3 * 1) / 6, (10 + 2 * 7 + 3 * 2) / 6
    assert out.flatten().tolist() == pytest.approx([first, second], rel=1e-6)
    assert kept[0, 0, 1].tolist() == pytest.approx([math.log(3) * math.sqrt(2), 5.0])


def test_what_is_hidden_or_not_filled_changes_no_bit() -> None:
    one = case()
    out, _, _ = attend(one)
    one.prompt_keys[1, :, :18] = 50.0
    one.prompt_values[1, :, :18] = -1e6
    one.keys[:, :, one.place + 1 :] = 50.0
    one.values[:, :, one.place + 1 :] = -1e6
    assert torch.equal(attend(one)[0], out)


@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_threads_changes_no_bit(
    form: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it change anything where PyTorch's threads are not found."""
    one = case(form, prompt_of=(0, 1) * 20)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(attend(one))
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(decoding, "_team", lambda: None)
    found.append(attend(one))
    for other in found[1:]:
        assert all(torch.equal(left, right) for left, right in zip(other, found[0], strict=True))


def test_a_spoilt_number_spoils_its_own_answer_alone() -> None:
    one = case()
    one.heads[3, 0, 0] = math.nan
    out, _, _ = attend(one)
    assert out[3, 0].isnan().all()
    assert not out[[0, 1, 2, 4, 5, 6]].isnan().any()
    assert not out[3, 1:].isnan().any()


def test_memory_that_lies_otherwise_is_refused() -> None:
    one = case()
    with pytest.raises(ValueError, match="want contiguous tensors"):
        attend(one._replace(heads=one.heads.transpose(0, 1).contiguous().transpose(0, 1)))
    with pytest.raises(ValueError, match="want numbers of one format"):
        attend(one._replace(values=one.values.bfloat16()))
    with pytest.raises(ValueError, match="must be float32"):
        attend(one._replace(mask=one.mask.double()))
    with pytest.raises(ValueError, match="cover prompts and answers"):
        attend(one._replace(mask=one.mask[:, :32].contiguous()))
    with pytest.raises(ValueError, match="the place lie among these"):
        attend(one._replace(place=32))


def test_it_is_compiled_also_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def cfunc(_: object, *, cache: bool = False) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: SimpleNamespace(ctypes=function)

    monkeypatch.setattr(decoding, "cfunc", cfunc)
    assert decoding._worker.__wrapped__("norm", torch.float32) is decoding._norm_float32


def test_bfloat16_is_rounded_as_pytorch_rounds_it() -> None:
    torch.manual_seed(0)
    special = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, math.inf, -math.inf, 3.4e38, 1e-40]
    sizes = 10.0 ** (torch.arange(1000) % 9)
    numbers = torch.cat([torch.tensor(special), torch.randn(1000) * sizes])
    found = [decoding._rounded(np.float32(x)) for x in numbers.tolist()]
    assert found == numbers.bfloat16().view(torch.uint16).tolist()
    assert decoding._rounded(np.float32(math.nan)) == 0x7FC0
    # a NaN whose bits would grow into another number by rounding
    odd = np.array([0xFFFFFFFF], np.uint32).view(np.float32)[0]
    assert decoding._rounded(odd) == 0x7FC0


def test_e_to_a_power_is_exact_to_two_units_in_the_last_place() -> None:
    powers = np.concatenate([-np.logspace(-8, math.log10(86.9), 3000), [0.0]]).astype(np.float32)
    found = np.array([decoding._exp(x) for x in powers], np.float64)
    wanted = np.exp(powers.astype(np.float64))
    assert np.max(np.abs(found - wanted) / np.spacing(wanted.astype(np.float32))) <= 2
    assert decoding._exp(np.float32(-88.0)) == 0
    assert decoding._exp(np.float32(-1e38)) == 0
    assert math.isnan(decoding._exp(np.float32(math.nan)))


@pytest.mark.parametrize(
    ("row", "largest"),
    [([-3.0, -2.0, -1.5], -1.5), ([-3.0, 4.0, 2.0], 4.0), ([-0.5, -math.inf], -0.5)],
)
def test_the_largest_of_a_row(row: list[float], largest: float) -> None:
    numbers = np.array([9.0, *row, 9.0], np.float32)
    assert decoding._top(numbers, np.uintp(1), np.uintp(len(row))) == largest


def test_a_row_with_a_nan_has_weights_that_are_none() -> None:
    row = np.array([0.0, math.nan, 1.0], np.float32)
    assert math.isnan(decoding._softmax(row, np.uintp(0), np.uintp(3)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(3, 1, 24), (70, 40), (1, 7), (2, 300, 576)])
def test_a_norm_is_the_one_of_plain_operations(form: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape).to(form), torch.randn(shape[-1]).to(form)
    found = decoding.norm(x, weight, 1e-5)
    assert found.dtype == form
    slack = {"rtol": 1e-5, "atol": 1e-6} if form == torch.float32 else {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(found, kernels.LeanNorm.forward(None, x, weight, 1e-5), **slack)


def test_a_norm_worked_by_hand() -> None:
    # the mean square of 1 and 7 is 25, and 24 more make 49
    found = decoding.norm(torch.tensor([[1.0, 7.0]]), torch.tensor([7.0, -1.0]), 24.0)
    assert found.tolist() == [[pytest.approx(1.0), pytest.approx(-1.0)]]


def test_a_norm_of_two_formats_is_refused() -> None:
    with pytest.raises(ValueError, match="want numbers of one format"):
        decoding.norm(torch.ones(2, 4), torch.ones(4).bfloat16(), 1e-5)
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        decoding.norm(torch.ones(2, 4).double(), torch.ones(4).double(), 1e-5)
    with pytest.raises(ValueError, match="want contiguous tensors"):
        decoding.norm(torch.ones(4, 2).T, torch.ones(4), 1e-5)
