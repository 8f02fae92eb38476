"""The reward model's losses: numbers worked by hand, equalities, and TRL as an oracle."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.data import Pairs, Ranking, pairs_of
from trainer.losses import (
    davidson_losses,
    first_log_nu,
    pair_losses,
    plackett_luce_loss,
    ranking_losses,
    weighted_sum,
)


def ranking(*ranks: int, gaps: tuple[float, ...] = (), weight: float = 1.0) -> Ranking:
    return Ranking(
        messages=({"role": "user", "content": "?"},),
        answer_ids=tuple(f"a{n}" for n in range(len(ranks))),
        texts=("",) * len(ranks),
        ranks=ranks,
        gaps=gaps or (0.0,) * (max(ranks) - 1),
        weight=weight,
    )


def random_rankings(number: int, k: int, seed: int = 0) -> tuple[list[Ranking], Tensor]:
    """Rankings with ties, and scores for their answers."""
    dice = torch.Generator().manual_seed(seed)
    rankings = []
    for _ in range(number):
        _, ranks = torch.unique(torch.randint(0, k, (k,), generator=dice), return_inverse=True)
        rankings.append(ranking(*(ranks + 1).tolist()))
    return rankings, torch.randn(number * k, generator=dice, dtype=torch.float64)


# Three answers: a before b = c. Scores a 1, b 0, c −1; b and c tie; the gap from rank 1 to 2 is 2.
#   −log σ(1) = 0.3132617   −log σ(−1) = 1.3132617   −log σ(2) = 0.1269280   −log ½ = 0.6931472
SCORES = torch.tensor([1.0, 0.0, -1.0])


def one(gap: float = 2.0) -> Pairs:
    return pairs_of([ranking(1, 2, 2, gaps=(gap,))])


def test_a_tie_counts_as_one_half() -> None:
    # a–b: d = 1 → 0.3132617; a–c: d = 2 → 0.1269280; b–c tied, d = 1 → ½ (0.3132617 + 1.3132617)
    # = 0.8132617; mean of three = 1.2534514 / 3
    loss = ranking_losses(SCORES, one())
    assert loss.tolist() == pytest.approx([0.4178171], abs=1e-6)


def test_a_dropped_tie_leaves_the_mean_of_the_untied_pairs() -> None:
    # (0.3132617 + 0.1269280) / 2
    loss = ranking_losses(SCORES, one(), ties="drop")
    assert loss.tolist() == pytest.approx([0.2200949], abs=1e-6)


def test_the_margin_grows_with_the_gap_and_spares_ties() -> None:
    # margin ½ × gap 2 = 1: a–b: d − 1 = 0 → 0.6931472; a–c: 1 → 0.3132617; b–c as before 0.8132617
    loss = ranking_losses(SCORES, one(), margin=0.5)
    assert loss.tolist() == pytest.approx([1.8196706 / 3], abs=1e-6)


def test_centring_adds_the_mean_squared_sum_of_the_pairs() -> None:
    # (1+0)² = 1, (1−1)² = 0, (0−1)² = 1: mean 2/3, times 0.3 = 0.2
    plain, centred = ranking_losses(SCORES, one()), ranking_losses(SCORES, one(), centring=0.3)
    assert (centred - plain).tolist() == pytest.approx([0.2], abs=1e-6)


def test_a_ranking_that_is_one_tie_has_no_loss_when_ties_are_dropped() -> None:
    pairs = pairs_of([ranking(1, 1, 1), ranking(1, 2)])
    scores = torch.tensor([5.0, 0.0, 1.0, 0.0, 0.0])
    assert ranking_losses(scores, pairs, ties="drop").tolist() == pytest.approx([0.0, math.log(2)])


def test_a_tie_is_least_lossy_where_scores_are_equal() -> None:
    tie = pairs_of([ranking(1, 1)])
    losses = [
        float(ranking_losses(torch.tensor([d, 0.0], dtype=torch.float64), tie))
        for d in (-0.5, -0.1, 0.0, 0.1, 0.5)
    ]
    assert min(losses) == losses[2] == pytest.approx(math.log(2))
    assert losses[0] == pytest.approx(losses[4])


def test_each_ranking_counts_once_however_many_answers_it_has() -> None:
    pairs = pairs_of([ranking(1, 2), ranking(1, 2, 3, 4)])
    assert ranking_losses(torch.zeros(6), pairs).tolist() == pytest.approx([math.log(2)] * 2)


def test_swapping_better_and_worse_turns_the_sign_of_the_gradient() -> None:
    scores = torch.zeros(2, requires_grad=True)
    ranking_losses(scores, pairs_of([ranking(1, 2)])).sum().backward()
    forward = scores.grad.clone()
    scores.grad = None
    ranking_losses(scores, pairs_of([ranking(2, 1)])).sum().backward()
    assert forward.tolist() == [-0.5, 0.5]
    assert torch.equal(scores.grad, -forward)


def test_swapping_better_and_worse_exchanges_the_likelihoods() -> None:
    pair = pairs_of([ranking(1, 2)])
    d = torch.tensor([0.7], dtype=torch.float64)
    for_it, against = pair_losses(d, pair), pair_losses(-d, pair)
    assert float(torch.exp(-for_it) + torch.exp(-against)) == pytest.approx(1.0)
    assert float(against - for_it) == pytest.approx(0.7)  # log-odds


def test_the_order_in_which_answers_stand_does_not_matter() -> None:
    first = ranking_losses(torch.tensor([0.3, -1.0, 2.0]), pairs_of([ranking(1, 2, 2)]))
    mixed = ranking_losses(torch.tensor([2.0, 0.3, -1.0]), pairs_of([ranking(2, 1, 2)]))
    assert torch.allclose(first, mixed)


def test_eight_rankings_have_the_gradient_of_two_times_four() -> None:
    rankings, scores = random_rankings(8, 4)
    whole = scores.clone().requires_grad_()
    pairs = pairs_of(rankings)
    (weighted_sum(ranking_losses(whole, pairs), pairs.weight.double()) / 8).backward()
    halves = scores.clone().requires_grad_()
    for begin in (0, 4):
        pairs = pairs_of(rankings[begin : begin + 4])
        part = ranking_losses(halves[4 * begin : 4 * begin + 16], pairs)
        (weighted_sum(part, pairs.weight.double()) / 8).backward()
    assert torch.allclose(whole.grad, halves.grad, atol=1e-15)


def test_a_weight_of_two_is_the_same_ranking_twice() -> None:
    twice = pairs_of([ranking(1, 2), ranking(1, 2)])
    heavy = pairs_of([ranking(1, 2, weight=2.0)])
    a = weighted_sum(ranking_losses(torch.tensor([0.4, 1.0, 0.4, 1.0]), twice), twice.weight)
    b = weighted_sum(ranking_losses(torch.tensor([0.4, 1.0]), heavy), heavy.weight)
    assert float(a) == pytest.approx(float(b))


# Davidson's ties


def test_davidson_gives_a_tie_a_probability_of_its_own() -> None:
    # π = 4 and 1, so √(π π') = 2; ν = ½: P(first) = 4/(4 + 1 + ½·2) = 4/6, P(second) = 1/6,
    # P(tie) = 1/6; e^{d/2} = √4
    d, log_nu = torch.tensor([math.log(4.0)]), torch.tensor(0.5).log()
    untied, tie = pairs_of([ranking(1, 2)]), pairs_of([ranking(1, 1)])
    assert float(davidson_losses(d, untied, log_nu)) == pytest.approx(-math.log(4 / 6), abs=1e-6)
    assert float(davidson_losses(-d, untied, log_nu)) == pytest.approx(-math.log(1 / 6), abs=1e-6)
    assert float(davidson_losses(d, tie, log_nu)) == pytest.approx(-math.log(1 / 6), abs=1e-6)
    assert float(davidson_losses(-d, tie, log_nu)) == pytest.approx(-math.log(1 / 6), abs=1e-6)


def test_davidson_without_ties_becomes_bradley_and_terry() -> None:
    pairs = pairs_of([ranking(1, 2, 3, gaps=(1.0, 2.0))])
    scores = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    nothing = torch.tensor(-40.0, dtype=torch.float64)
    found = ranking_losses(scores, pairs, margin=0.5, centring=0.1, log_nu=nothing)
    assert torch.allclose(found, ranking_losses(scores, pairs, margin=0.5, centring=0.1))


def test_the_share_of_ties_is_where_davidson_is_least() -> None:
    """At equal scores P(tie) = ν/(2 + ν); of four pairs one tied: ν = 2 · ¼ / ¾ = 2/3."""
    pairs = pairs_of([ranking(1, 1), ranking(1, 2), ranking(1, 2), ranking(1, 2)])
    log_nu = torch.tensor(2 / 3).log().requires_grad_()
    ranking_losses(torch.zeros(8), pairs, log_nu=log_nu).sum().backward()
    assert log_nu.grad is not None
    assert float(log_nu.grad) == pytest.approx(0.0, abs=1e-6)
    # half a pair of either kind is added: (1 + ½) / (4 + 1) = 0.3, so ν = 0.6 / 0.7
    assert first_log_nu(1, 4) == pytest.approx(math.log(6 / 7))
    assert first_log_nu(0, 9) < -2 < 2 < first_log_nu(9, 9) < math.inf


def test_davidson_does_not_overflow() -> None:
    d = torch.tensor([900.0, -900.0], requires_grad=True)
    losses = davidson_losses(d, pairs_of([ranking(1, 2), ranking(1, 1)]), torch.zeros(()))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 450.0])
    assert torch.isfinite(d.grad).all()


# Plackett–Luce


def test_plackett_luce_is_a_chain_of_choices() -> None:
    # e^{log 2}, e^{log 3}, e^{log 5} = 2, 3, 5; order 5, 2, 3: P = 5/10 · 2/5 = 0.2; two choices
    scores = torch.tensor([2.0, 3.0, 5.0]).log()
    loss = plackett_luce_loss(scores, torch.tensor([2, 3, 1]))
    assert float(loss) == pytest.approx(-math.log(0.2) / 2, abs=1e-6)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    scores = torch.tensor([0.3, 1.7])
    loss = plackett_luce_loss(scores, torch.tensor([1, 2]))
    assert float(loss) == pytest.approx(float(ranking_losses(scores, pairs_of([ranking(1, 2)]))))


def test_plackett_luce_shares_a_rank_after_efron() -> None:
    # 2, 3 share the first rank before 5: 2/10 · 3/(10 − ½·5) = 0.08; two choices (K − 1)
    scores = torch.tensor([2.0, 3.0, 5.0]).log()
    loss = plackett_luce_loss(scores, torch.tensor([1, 1, 2]))
    assert float(loss) == pytest.approx(-math.log(0.08) / 2, abs=1e-6)


def test_plackett_luce_does_not_overflow() -> None:
    scores = torch.tensor([900.0, -900.0, 0.0], requires_grad=True)
    loss = plackett_luce_loss(scores, torch.tensor([1, 3, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(0.0)
    assert torch.isfinite(scores.grad).all()


# TRL's RewardTrainer as an oracle


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real RewardTrainer around a random model of a few thousand weights."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("trl")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_letters(), pad_token="0", eos_token="1")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    trl = pytest.importorskip("trl")
    settings = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False}
    arguments = trl.RewardConfig(
        str(folder), report_to=[], disable_tqdm=True, center_rewards_coefficient=0.05, **settings
    )
    rows = {"chosen_ids": [[5, 6, 1], [7, 1]], "rejected_ids": [[8, 1], [9, 10, 11, 1]]}
    return trl.RewardTrainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({**rows, "margin": [0.5, 1.5]}),
    )


def _letters() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    core = Tokenizer(models.WordLevel({str(n): n for n in range(40)}, unk_token="2"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return core


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("with_margin", [False, True])
def test_the_loss_of_two_answers_is_that_of_trl(trl_trainer: Any, with_margin: bool) -> None:
    rows = [dict(row) for row in trl_trainer.train_dataset]
    if not with_margin:
        rows = [{key: row[key] for key in ("chosen_ids", "rejected_ids")} for row in rows]
    batch = trl_trainer.data_collator(rows)
    trl_trainer.model.eval()
    with torch.no_grad():
        theirs = float(trl_trainer.compute_loss(trl_trainer.model, dict(batch)))
        scores = [
            _score(trl_trainer.model, row[key]) for row in rows for key in rows[0] if "ids" in key
        ]
    gaps = (0.5, 1.5) if with_margin else (0.0, 0.0)
    pairs = pairs_of([ranking(1, 2, gaps=(gap,)) for gap in gaps])
    ours = ranking_losses(torch.stack(scores), pairs, margin=1.0, centring=0.05).mean()
    assert float(ours) == pytest.approx(theirs, abs=1e-6)
    assert theirs != pytest.approx(math.log(2), abs=1e-2)  # the comparison is about something


def _score(model: Any, ids: list[int]) -> Tensor:
    """Each answer alone, without padding: what the oracle computes in one padded batch."""
    return model(input_ids=torch.tensor([ids])).logits[0, 0]
