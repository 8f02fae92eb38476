"""Where heads start: the fit worked by hand, against SciPy, and what must not change it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from trainer import headstart
from trainer.data import Ranking, pairs_of
from trainer.headstart import (
    NARROWEST,
    PENALTIES,
    Examples,
    choose_penalty,
    make_examples,
    penalised_fit,
    principal,
    start_heads,
)


def order(number: int, *ranks: int, weight: float = 1.0) -> Ranking:
    ids = tuple(f"{number}-{k}" for k in range(len(ranks)))
    messages = ({"role": "user", "content": f"prompt {number}"},)
    return Ranking(messages, ids, ids, ranks, (0.0,) * (max(ranks) - 1), weight=weight)


def planted(count: int, d: int = 6, seed: int = 0) -> tuple[list[torch.Tensor], list[Ranking]]:
    """States whose first direction decides, with Gumbel noise: differences are then logistic."""
    dice = torch.Generator().manual_seed(seed)
    states, rankings = [], []
    for number in range(count):
        some = torch.randn(3, d, generator=dice)
        uniform = torch.rand(3, generator=dice)
        noisy = 1.5 * some[:, 0] - torch.log(-torch.log(uniform))
        places = noisy.argsort(descending=True).argsort() + 1
        states.append(some)
        rankings.append(order(number, *places.tolist()))
    return states, rankings


def examples(x: list[float], target: list[float] | None = None) -> Examples:
    n = len(x)
    return Examples(
        torch.tensor(x, dtype=torch.float64)[:, None],
        torch.tensor(target or [1.0] * n, dtype=torch.float64),
        torch.ones(n, dtype=torch.float64),
        torch.arange(n) % 5,
    )


def test_without_penalty_the_weight_is_the_log_odds() -> None:
    """Three of four differences of 1 are in the right order: σ(w) = ¾, w = log 3."""
    some = examples([1.0, 1.0, 1.0, -1.0])
    assert float(penalised_fit(some, some.count, 0.0)) == pytest.approx(math.log(3), abs=1e-6)
    # a tie says that the difference should be 0: σ(w) = (1 + 1 + 1 + ½) / 4 where one of 4 is tied
    tied = examples([1.0] * 4, [1.0, 1.0, 1.0, 0.5])
    wanted = math.log(0.875 / 0.125)
    assert float(penalised_fit(tied, tied.count, 0.0)) == pytest.approx(wanted, abs=1e-6)


def test_it_finds_what_a_general_minimiser_finds() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    dice = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=dice, dtype=torch.float64)
    target = torch.where(torch.rand(40, generator=dice) < 0.2, 0.5, 1.0).double()
    count = torch.rand(40, generator=dice, dtype=torch.float64)
    some = Examples(x, target, count, torch.zeros(40))

    def loss(w: list[float]) -> float:
        d = x @ torch.tensor(w, dtype=torch.float64)
        each = -target * torch.nn.functional.logsigmoid(d)
        each -= (1 - target) * torch.nn.functional.logsigmoid(-d)
        norm = sum(one**2 for one in w)
        return float(count @ each) + 0.5 * 0.1 * float(count.sum()) * norm

    wanted = optimize.minimize(loss, [0.0] * 5, method="BFGS", tol=1e-10).x
    found = penalised_fit(some, count, 0.1)
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_directions_lead_back_to_the_states() -> None:
    difference = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)).double()
    back, x = principal(difference, torch.ones(50).double())
    assert torch.allclose(difference @ back, x)
    assert torch.allclose(x.T @ x, torch.diag((x.T @ x).diag()), atol=1e-9)


def test_directions_are_those_in_which_what_counts_differs_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(1, 1, 0) counts 9 and (0, 0, 1) counts 1: the roots of their mean squares are √.9, √.9, √.1.

    By these divided, the first two numbers say 10 each and the same, the third says 10: 20 along
    (1, 1, 0)/√2 and 10 along the third. There the first pair is √2/√.9, the second nothing.
    """
    monkeypatch.setattr(headstart, "DIRECTIONS", 1)
    difference = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    back, x = principal(difference, torch.tensor([9.0, 1.0]).double())
    assert x.abs().tolist() == [[pytest.approx(1.490712)], [pytest.approx(0.0, abs=1e-9)]]
    # and back to the states: (1/√2)/√.9, the same for both
    wanted = [pytest.approx(0.745356), pytest.approx(0.745356), pytest.approx(0.0, abs=1e-9)]
    assert back.abs()[:, 0].tolist() == wanted


def test_what_decides_is_found() -> None:
    states, rankings = planted(300)
    (head,) = start_heads(states, rankings, torch.ones(300, 1))
    assert head[0] > 8 * head[1:].abs().max()
    # so the honest log-odds are 1.5 for each unit
    assert float(head[0]) == pytest.approx(1.5, abs=0.3)


def test_noise_asks_for_the_strongest_penalty_and_a_narrow_head() -> None:
    dice = torch.Generator().manual_seed(3)
    states = [torch.randn(2, 8, generator=dice) for _ in range(60)]
    rankings = [order(n, *((1, 2) if n % 2 else (2, 1))) for n in range(60)]
    heads = start_heads(states, rankings, torch.ones(60, 1))
    scores = torch.cat(states).double() @ heads[0]
    assert float(scores.std(correction=0)) == pytest.approx(NARROWEST, rel=0.5)


def test_the_penalty_is_chosen_by_prompts_that_were_left_out() -> None:
    """All five folds say the same, so little penalty is best; the choice is one of the list."""
    _, penalty, temperature = choose_penalty(examples([1.0] * 30 + [-1.0] * 10))
    assert penalty in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    assert temperature > 0


def test_what_no_other_prompt_shows_stays_a_throw_of_a_coin() -> None:
    """Each prompt differs in a direction of its own: log 2 for the four pairs that are no tie."""
    target = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5]).double()
    some = Examples(torch.eye(5).double(), target, torch.ones(5).double(), torch.arange(5))
    loss, _, _ = choose_penalty(some)
    assert loss == pytest.approx(4 * math.log(2))


def test_no_penalty_of_the_list_is_better_than_the_one_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states, rankings = planted(60)
    _, some = make_examples(torch.cat(states).double(), rankings, pairs_of(rankings))
    chosen = choose_penalty(some)
    alone = []
    for penalty in PENALTIES:
        monkeypatch.setattr(headstart, "PENALTIES", (penalty,))
        alone.append(choose_penalty(some))
    assert chosen == min(alone)
    assert chosen[0] < max(alone)[0] - 0.1


def test_a_ranking_twice_is_a_ranking_of_weight_2() -> None:
    states, rankings = planted(40)
    heavy = [*rankings[:-1], dataclasses.replace(rankings[-1], weight=2.0)]
    twice = [*rankings, rankings[-1]]
    one = start_heads(states, heavy, torch.ones(40, 1))
    other = start_heads([*states, states[-1]], twice, torch.ones(41, 1))
    assert torch.allclose(one, other, rtol=1e-6)


def test_the_order_of_rankings_and_the_place_of_the_origin_say_nothing() -> None:
    states, rankings = planted(40)
    one = start_heads(states, rankings, torch.ones(40, 1))
    turned = start_heads(states[::-1], rankings[::-1], torch.ones(40, 1))
    moved = start_heads([some + 5.0 for some in states], rankings, torch.ones(40, 1))
    assert torch.allclose(one, turned, atol=1e-6)
    assert torch.allclose(one, moved, atol=1e-4)


def test_members_hear_what_counts_for_them() -> None:
    """The second member hears only of rankings that are turned round."""
    states, rankings = planted(80)
    against = [
        dataclasses.replace(one, ranks=tuple(4 - rank for rank in one.ranks)) for one in rankings
    ]
    shares = torch.zeros(160, 2)
    shares[:80, 0] = shares[80:, 1] = 2.0
    heads = start_heads([*states, *states], [*rankings, *against], shares)
    assert heads[0, 0] > 0 > heads[1, 0]


def test_a_handful_of_rankings_is_enough_to_begin() -> None:
    states, rankings = planted(2, d=64)
    heads = start_heads(states, rankings, torch.ones(2, 1))
    assert torch.isfinite(heads).all()
    assert len(pairs_of(rankings).better) == 6
    tied = [order(0, 1, 1), order(1, 1, 2)]
    heads = start_heads([torch.ones(2, 3), torch.eye(3)[:2]], tied, torch.ones(2, 1))
    assert torch.isfinite(heads).all()
