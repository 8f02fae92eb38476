"""The arithmetic of PPO, against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer import rewards

#: two answers: three tokens, and two tokens with one place of padding
MASK = torch.tensor([[True, True, True], [True, True, False]])


def close(found: torch.Tensor, wanted: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=found.dtype), rtol=0, atol=1e-6)


def test_the_score_stands_on_the_last_real_token_and_kl_costs_at_every_token() -> None:
    kl = torch.tensor([[0.5, -0.25, 1.0], [2.0, 0.0, 9.0]])  # the 9 stands on padding
    score = torch.tensor([3.0, -1.0])
    # -0.1 * kl, then + 3 in place 2 of the first answer and - 1 in place 1 of the second
    close(
        rewards.shaped_rewards(kl, score, MASK, kl_coef=0.1),
        [[-0.05, 0.025, 2.9], [-0.2, -1.0, 0.0]],
    )


def test_kl_estimators_of_one_token() -> None:
    logprob, reference = torch.tensor([[-1.0]]), torch.tensor([[-1.5]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    # k1 = -1 + 1.5; k3 = e^-0.5 - 1 + 0.5 = 0.6065307 - 0.5
    close(rewards.kl_k1(logprob, reference, mask), [[0.5]])
    close(rewards.kl_k3(logprob, reference, mask), [[0.1065307]])


def test_k2_is_half_the_square_of_the_log_ratio() -> None:
    """log π − log π_ref = ln 2 at the first token, −1 at the second, padding behind."""
    policy, reference = torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[-1.693147, -1.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    close(rewards.kl_k2(policy, reference, mask), [[0.240227, 0.5, 0.0]])
    # k1: ln 2, −1; k3: ½ − 1 + ln 2, e − 1 − 1
    by_name = {
        name: estimator(policy, reference, mask).tolist()[0]
        for name, estimator in rewards.KL_ESTIMATORS.items()
    }
    assert by_name["k1"] == pytest.approx([0.693147, -1.0, 0.0], abs=1e-6)
    assert by_name["k2"] == pytest.approx([0.240227, 0.5, 0.0], abs=1e-6)
    assert by_name["k3"] == pytest.approx([0.193147, 0.718282, 0.0], abs=1e-6)


def test_the_estimators_over_many_draws() -> None:
    """π = (¾, ¼), π_ref = (½, ½): KL = ¾ ln 1.5 + ¼ ln 0.5 = 0.130812.

    k2's expectation is ½ (¾ (ln 1.5)² + ¼ (ln 0.5)²) = 0.121707: too small.
    """
    policy = torch.tensor([[0.75, 0.25]]).log()
    reference = torch.tensor([[0.5, 0.5]]).log()
    mask = torch.ones(1, 2, dtype=torch.bool)
    weights = torch.tensor([[0.75, 0.25]])
    mean = {
        name: float((weights * estimator(policy, reference, mask)).sum())
        for name, estimator in rewards.KL_ESTIMATORS.items()
    }
    assert mean == pytest.approx({"k1": 0.130812, "k2": 0.121707, "k3": 0.130812}, abs=1e-6)


def test_the_score_of_an_ensemble() -> None:
    """Members 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5."""
    members = torch.tensor([[1.0, 2.0, 3.0, 6.0], [2.0, 2.0, 2.0, 2.0]])
    assert rewards.ensemble_score(members, "mean", 0.0).tolist() == [3.0, 2.0]
    worked = [3 - 0.5 * 3.5**0.5, 2.0]
    assert rewards.ensemble_score(members, "mean", 0.5).tolist() == pytest.approx(worked)
    assert rewards.ensemble_score(members, "minimum", 0.0).tolist() == [1.0, 2.0]


def test_kl_is_nothing_on_padding() -> None:
    logprob, reference = torch.full((2, 3), -1.0), torch.full((2, 3), -3.0)
    close(rewards.kl_k1(logprob, reference, MASK), [[2, 2, 2], [2, 2, 0]])
    assert rewards.kl_k3(logprob, reference, MASK)[1, 2] == 0


def test_advantages_worked_by_hand() -> None:
    reward = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 7.0]])  # the 7 stands on padding
    values = torch.tensor([[0.5, 0.5, 0.5], [0.5, 1.0, 7.0]])
    advantages, returns = rewards.gae(reward, values, MASK, gamma=1.0, lam=0.5)
    # first answer:  δ = [0, 0, 0.5]; A3 = 0.5, A2 = 0 + 0.5·0.5 = 0.25, A1 = 0.125
    # second answer: δ2 = 2 - 1 = 1, A2 = 1; δ1 = 1 + 1 - 0.5 = 1.5, A1 = 1.5 + 0.5·1 = 2
    close(advantages, [[0.125, 0.25, 0.5], [2.0, 1.0, 0.0]])
    close(returns, [[0.625, 0.75, 1.0], [2.5, 2.0, 0.0]])


def test_advantages_with_a_discount() -> None:
    reward = torch.tensor([[0.0, 0.0, 1.0]])
    values = torch.full((1, 3), 0.5)
    advantages, _ = rewards.gae(reward, values, MASK[:1], gamma=0.9, lam=0.5)
    # δ3 = 0.5; δ2 = 0.9·0.5 - 0.5 = -0.05, A2 = -0.05 + 0.45·0.5 = 0.175;
    # δ1 = -0.05, A1 = -0.05 + 0.45·0.175 = 0.02875
    close(advantages, [[0.02875, 0.175, 0.5]])


def test_whitening_gives_mean_0_and_variance_1_over_real_tokens() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 100.0]])
    # over 1 … 5: mean 3, variance 2
    root = math.sqrt(2.0)
    close(rewards.whiten(x, MASK), [[-2 / root, -1 / root, 0.0], [1 / root, 2 / root, 0.0]])


def test_whitening_equal_numbers_gives_zeros() -> None:
    close(rewards.whiten(torch.full((2, 3), 7.0), MASK), [[0, 0, 0], [0, 0, 0]])


def test_the_policy_loss_stops_helping_beyond_the_clip() -> None:
    old = torch.zeros(1, 3)
    logprob = torch.tensor([[math.log(1.5), math.log(1.5), 0.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, 2.0]])
    loss = rewards.policy_loss(logprob, old, advantages, MASK[:1], clip=0.2)
    # -min(1.5, 1.2) = -1.2; -min(-1.5, -1.2) = 1.5; -2
    assert loss.loss.item() == pytest.approx(-1.7, abs=1e-6)
    assert loss.clipped.item() == 1
    assert loss.ratio.item() == pytest.approx(4.0, abs=1e-6)
    # k3 of each token: 1.5 - 1 - ln 1.5 = 0.0945349, twice, and 0
    assert loss.approx_kl.item() == pytest.approx(0.1890698, abs=1e-6)
    loss.loss.backward()
    # clipped: none; ratio 1.5 with advantage -1: 1.5; ratio 1 with advantage 2: -2
    close(logprob.grad, [[0.0, 1.5, -2.0]])


def test_padding_changes_no_policy_loss() -> None:
    logprob = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 5.0]])
    loss = rewards.policy_loss(logprob, torch.zeros(2, 3), torch.ones(2, 3), MASK, 0.2)
    other = logprob.clone()
    other[1, 2] = -5.0
    again = rewards.policy_loss(other, torch.zeros(2, 3), torch.ones(2, 3), MASK, 0.2)
    assert [float(x) for x in loss] == [float(x) for x in again]


def test_the_policy_loss_stops_helping_below_the_clip_too() -> None:
    # ratio ½ with advantage -1: -min(-0.5, -0.8) = 0.8, clipped; with advantage 1: -min(0.5, 0.8)
    logprob = torch.full((1, 2), math.log(0.5))
    advantages = torch.tensor([[-1.0, 1.0]])
    loss = rewards.policy_loss(logprob, torch.zeros(1, 2), advantages, MASK[:1, :2], clip=0.2)
    assert loss.loss.item() == pytest.approx(0.8 - 0.5, abs=1e-6)
    assert loss.clipped.item() == 1


def test_padding_has_no_policy_loss_and_no_ratio() -> None:
    """Five real tokens of ratio 1 and advantage 2; what stands on padding counts nowhere."""
    same = torch.zeros(2, 3)
    loss = rewards.policy_loss(same, same, torch.full((2, 3), 2.0), MASK, clip=0.2)
    assert (loss.loss.item(), loss.ratio.item(), loss.approx_kl.item()) == (-10.0, 5.0, 0.0)


def test_padding_has_no_value_loss() -> None:
    # every value is 1 beside its return: ½ on each of five tokens
    ones = torch.ones(2, 3)
    assert rewards.value_loss(ones, ones, 2 * ones, MASK, clip=0.2).item() == 2.5


def test_a_value_may_not_profit_from_a_long_way() -> None:
    value, old = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    # R = 1: plain (1-1)² = 0, limited to 0.2: (0.2-1)² = 0.64, the worse of the two, halved
    loss = rewards.value_loss(value, old, torch.tensor([[1.0]]), mask, clip=0.2)
    assert loss.item() == pytest.approx(0.32, abs=1e-6)
    # R = 0: plain 1, limited 0.04
    loss = rewards.value_loss(value, old, torch.tensor([[0.0]]), mask, clip=0.2)
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0]])
    mask = MASK[:1]
    assert rewards.explained_variance(returns, returns, mask) == 1.0
    assert rewards.explained_variance(torch.full((1, 3), 9.0), returns, mask) == 0.0
    # R - V = [2, 4, 6] has four times the variance of R
    assert rewards.explained_variance(-returns, returns, mask) == pytest.approx(-3.0, abs=1e-5)


def test_of_equal_returns_nothing_can_be_explained() -> None:
    assert rewards.explained_variance(torch.zeros(1, 3), torch.full((1, 3), 2.0), MASK[:1]) == 0.0


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [(12.0, 0.1 * (1 + 0.2 * 0.1)), (0.0, 0.1 * (1 - 0.2 * 0.1)), (6.6, 0.1 * (1 + 0.1 * 0.1))],
)
def test_the_kl_weight_follows_the_target(kl: float, wanted: float) -> None:
    # 100 episodes of a horizon of 1000; the relative error is cut at ±0.2
    found = rewards.adapt_kl_coef(0.1, kl, target=6.0, episodes=100, horizon=1000)
    assert found == pytest.approx(wanted)
