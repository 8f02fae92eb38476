"""A planted bug in each formula turns a test red.

Each line of `MUTANTS` is a bug that one might well write: a sign, a mask, a shift, an off-by-one.
It is put into a forked copy of this process, where the named tests must then fail; another test
runs them on the code as it is, where they must pass. A bug that turns nothing red means that a
test is missing: write it, with numbers worked by hand.

Choices: a fragment must stand exactly once in its function. The function keeps its identity and
gets another body, so whoever holds it runs the bug.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
import tempfile
import textwrap
import traceback
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numba
import pytest
from numba.core.dispatcher import Dispatcher

from tests import forked

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
#: how a run of tests ends: all passed, one failed, there was none
PASSED, RED, BROKEN, NOTHING = 0, 1, 3, 5
#: seconds that the tests of a mutant may take
PATIENCE = 60


class Mutant(NamedTuple):
    """A bug: where, what stands there, what is put in its place, who must see it, what it is."""

    place: str
    right: str
    wrong: str
    file: str
    tests: str
    bug: str


def bugs(place: str, *lines: tuple[str, str, str, str]) -> list[Mutant]:
    """Bugs in one function: (what stands there, what is put there, FILE: TESTS, what it is)."""
    found = []
    for right, wrong, where, bug in lines:
        file, _, tests = where.partition(": ")
        found.append(Mutant(place, right, wrong, file, tests, bug))
    return found


# fmt: off
MUTANTS = [
    # --- losses ---
    *bugs("losses.pair_losses",
        ("-logsigmoid(difference", "logsigmoid(difference", "losses: a_tie_counts_as_one", "the sign of the loss"),
        ("difference - margin", "difference + margin", "losses: the_margin_grows_with", "the sign of the margin"),
        ("margin * pairs.gap", "margin", "losses: the_margin_grows_with", "the gap forgotten"),
        ("-0.5 *", "-1.0 *", "losses: a_tie_counts_as_one", "a tie counts double"),
        ("logsigmoid(-difference)", "logsigmoid(difference)", "losses: a_tie_counts_as_one", "a tie takes a side"),
        ("tied, untied)", "untied, tied)", "losses: a_tie_counts_as_one", "ties and others exchanged"),
    ),
    *bugs("losses.ranking_losses",
        ("scores[pairs.better], scores[pairs.worse]", "scores[pairs.worse], scores[pairs.better]", "losses: a_tie_counts_as_one", "better and worse exchanged"),
        ("(better + worse) ** 2", "(better - worse) ** 2", "losses: centring_adds_the_mean", "centring on the difference"),
        ('if ties == "half"', 'if ties != "half"', "losses: a_tie_counts_as_one", "dropped ties kept, kept ones dropped"),
        ("index_add(0, pairs.ranking, loss * counts)", "index_add(0, pairs.ranking, loss)", "losses: a_dropped_tie_leaves", "the mask of dropped ties forgotten"),
        ("sums / numbers.clamp(min=1)", "sums", "losses: a_tie_counts_as_one", "a long ranking counts more"),
        ("sums / numbers.clamp(min=1)", "sums / numbers", "losses: a_ranking_that_is_one", "a ranking without pairs gives NaN"),
    ),
    *bugs("losses.davidson_losses",
        ("difference - margin", "difference + margin", "losses: davidson_without_ties", "the sign of the margin"),
        ("log_nu, d / 2)", "log_nu, d)", "losses: davidson_gives_a_tie", "the root of the strengths forgotten"),
        ("(d / 2, -d / 2)", "(d / 2, d / 2)", "losses: davidson_gives_a_tie", "the loser's strength forgotten"),
        ("log_sum - torch", "torch", "losses: davidson_gives_a_tie", "the normaliser forgotten"),
    ),
    *bugs("losses.first_log_nu",
        ("2 * share", "share", "losses: the_share_of_ties_is", "half the ties expected"),
        ("(tied + 0.5)", "tied", "losses: the_share_of_ties_is", "no ties give an infinite parameter"),
    ),
    *bugs("losses.plackett_luce_loss",
        ("ranks >= rank", "ranks > rank", "losses: plackett_luce_is_a", "the chosen one is not among those to choose from"),
        ("ranks >= rank", "ranks <= rank", "losses: plackett_luce_is_a", "the order turned round"),
        ("- group.sum()", "+ group.sum()", "losses: plackett_luce_is_a", "the sign of the chosen score"),
        ("rest - taken * own", "rest", "losses: plackett_luce_shares", "those of a shared rank not taken out"),
        ("len(group) * top", "top", "losses: plackett_luce_shares", "the offset added once for several"),
        ("(len(scores) - 1)", "len(scores)", "losses: plackett_luce_is_a", "K choices instead of K − 1"),
        (".arange(len(group),", ".arange(1, 1 + len(group),", "losses: plackett_luce_is_a", "one taken too early"),
    ),
    *bugs("losses.weighted_sum",
        ("(losses * weight)", "losses", "losses: a_weight_of_two_is", "weights forgotten"),
        (".sum()", ".mean()", "losses: eight_rankings_have", "a mean, so that halves do not add up"),
    ),
    # --- pairs and their data ---
    *bugs("data.pairs_of",
        ("ranking.ranks[i] > ranking.ranks[j]", "ranking.ranks[i] < ranking.ranks[j]", "data: every_weak_order_of", "worst is best"),
        ("ranking.gaps[high - 1 : low - 1]", "ranking.gaps[high : low]", "data: the_gap_of_a_pair_is", "gaps shifted by one"),
        ("ranking.gaps[high - 1 : low - 1]", "ranking.gaps[high - 1 : low]", "data: the_gap_of_a_pair_is", "one gap too many"),
        ("high == low", "high <= low", "data: every_weak_order_of", "everything is a tie"),
        ("low - high", "high - low", "data: every_weak_order_of", "the sign of the distance"),
        ("first += len(ranking.ranks)", "first += len(ranking.ranks) - 1", "data: pairs_of_several_rankings", "answers of the next ranking shifted"),
        ("ranking.weight for", "1.0 for", "data: pairs_carry_the_weight", "weights forgotten"),
    ),
    *bugs("data._dense",
        ("start=1", "start=0", "data: a_ranking_is_read_with", "ranks from zero"),
        ("sorted(set(ranks))", "sorted(ranks)", "data: a_ranking_is_read_with", "ties leave holes"),
    ),
    *bugs("data.split_by_prompt",
        ("at < border]", "at <= border]", "data: two_prompts_are_enough", "a prompt on both sides"),
        ("at >= border]", "at > border - 2]", "data: no_prompt_is_on_both", "held-out prompts trained on"),
    ),
    *bugs("types.padded",
        ("- 4", "- 3", "parts: a_batch_is_at_most", "a quarter wider"),
    ),
    *bugs("scoring.batch_scores",
        ("int(mask.sum(1).max())", "mask.shape[1]", "scoring: padding_does_not_reach", "padding beyond the window"),
    ),
    *bugs("data.cut_in_order",
        ("(len(parts[-1]) + 1) * padded", "len(parts[-1]) * padded", "data: a_bucket_is_full_when", "one row too many"),
        ("padded(widest)", "widest", "data: a_bucket_is_full_when", "padding is not counted"),
        ("<= max_tokens", "<= 2 * max_tokens", "reward: no_ranking_takes", "twice the budget"),
        ("(len(parts[-1]) + 1)", "len(parts[-1])", "reward: no_ranking_takes", "one row of a ranking too many"),
    ),
    # --- what a reward model reads ---
    *bugs("reading.read_evenly",
        ("parameter.zero_()", "pass", "reading: the_last_token_hears", "queries kept"),
        ("parameter.mul_(LOUD)", "pass", "reading: nothing_but_the_mean", "the last token is heard, too"),
        ("[-1]", "[0]", "reading: the_last_token_hears", "the first layer instead of the last"),
    ),
    *bugs("stages.reward.best_depth",
        ("min(losses", "max(losses", "reward: it_reads_where", "the worst depth"),
    ),
    *bugs("headstart.principal",
        ("(unit * count[:, None])", "unit", "headstart: directions_are_those", "what counts little says as much"),
        ("(count @ difference.square() / count.sum())", "difference.square().mean(0)", "headstart: directions_are_those", "the scale of uncounted pairs"),
        ("vectors[:, -min(", "vectors[:, : min(", "headstart: directions_are_those", "the directions that say least"),
        ("kept / scale[:, None]", "kept", "headstart: directions_are_those", "not brought back to the states"),
    ),
    *bugs("headstart.penalised_fit",
        ("(p - examples.target)) + strength * w", "(p - examples.target))", "headstart: a_general_minimiser", "no slope of the penalty"),
        ("(count * (p - examples.target))", "(p - examples.target)", "headstart: a_general_minimiser", "counts forgotten"),
        ("p - examples.target", "p - 1.0", "headstart: the_weight_is_the_log_odds", "a tie is a victory"),
        ("penalty * float(count.sum())", "penalty", "headstart: a_general_minimiser", "the more pairs, the weaker the penalty"),
        ("w = w - torch", "w = w + torch", "headstart: the_weight_is_the_log_odds", "the wrong way"),
    ),
    *bugs("headstart.choose_penalty",
        ("~inside", "inside", "headstart: no_other_prompt_shows", "fitted to what is tested"),
        ("untied = examples.target == 1.0", "untied = examples.target >= 0.5", "headstart: no_other_prompt_shows", "ties count"),
        ("min(tried)", "max(tried)", "headstart: no_penalty_of_the_list", "the worst penalty"),
    ),
    *bugs("headstart.unseen_loss",
        ("loss / max", "loss * max", "reading: what_cannot_be_told", "a sum instead of a mean"),
    ),
    # --- rewards of PPO ---
    *bugs("rewards.masked_mean",
        ("(x * mask).sum()", "x.sum()", "rewards", "padding counted"),
        ("mask.sum().clamp(min=1)", "mask.numel()", "rewards", "divided by padding, too"),
    ),
    *bugs("rewards.masked_variance",
        (".square()", ".abs()", "rewards", "not squared"),
        ("(x - masked_mean(x, mask))", "x", "rewards", "the mean not taken off"),
    ),
    *bugs("rewards.whiten",
        ("(x - masked_mean(x, mask))", "x", "rewards", "the mean stays"),
        ("* spread * mask", "* spread", "rewards", "padding gets a value"),
        (".rsqrt()", ".sqrt()", "rewards", "spread multiplied"),
        ("masked_variance(x, mask)", "x.var()", "rewards", "variance over padding"),
    ),
    *bugs("rewards.kl_k1",
        ("(logprob - reference)", "(reference - logprob)", "rewards", "the sign of the KL"),
        (") * mask", ")", "rewards", "padding has a KL"),
    ),
    *bugs("rewards.kl_k2",
        (" / 2", "", "rewards", "the half forgotten"),
        (".square()", ".abs()", "rewards", "not squared"),
    ),
    *bugs("rewards.kl_k3",
        ("(reference - logprob)", "(logprob - reference)", "rewards", "the ratio upside down"),
        ("- 1 - log_ratio", "- log_ratio", "rewards", "the one forgotten"),
        ("- 1 - log_ratio", "- 1 + log_ratio", "rewards", "the sign of the logarithm"),
        (") * mask", ")", "rewards", "padding has a KL"),
    ),
    *bugs("rewards.last_token",
        ("- 1", "", "rewards", "one behind the last token"),
    ),
    *bugs("rewards.shaped_rewards",
        ("-kl_coef", "kl_coef", "rewards", "the KL is rewarded"),
        ("-kl_coef * kl * mask", "-kl_coef * kl", "rewards", "the KL of padding costs"),
        ("last_token(mask)[:, None]", "last_token(mask)[:, None] * 0", "rewards", "the score on the first token"),
        ("last_token(mask)[:, None]", "(0 * last_token(mask) + mask.shape[1] - 1)[:, None]", "rewards", "the score on padding"),
    ),
    *bugs("rewards.ensemble_score",
        ("- pessimism *", "+ pessimism *", "rewards", "disagreement is rewarded"),
        ("members.amin(-1)", "members.amax(-1)", "rewards", "the highest member"),
        ("correction=0", "correction=1", "rewards", "another divisor"),
    ),
    *bugs("rewards.gae",
        ("gamma * next_value", "next_value", "rewards", "no discount of the next value"),
        ("gamma * lam * after", "lam * after", "rewards", "no discount of the advantage"),
        ("gamma * lam * after", "gamma * after", "rewards", "λ forgotten"),
        ("- values[:, t]", "+ values[:, t]", "rewards", "the sign of the value"),
        ("reversed(range(rewards.shape[1]))", "range(rewards.shape[1])", "rewards", "time runs forwards"),
        ("values = values * mask", "values = values", "rewards", "padding has a value"),
        ("after) * mask[:, t]", "after)", "rewards", "padding has an advantage"),
        ("next_value = values[:, t]", "next_value = values[:, t - 1]", "rewards", "the next value shifted"),
        ("(advantages + values)", "advantages", "rewards", "returns without the value"),
    ),
    *bugs("rewards.policy_loss",
        ("(logprob - old)", "(old - logprob)", "rewards", "the ratio upside down"),
        ("plain = -advantages", "plain = advantages", "rewards", "the sign of the gain"),
        ("1 - clip, 1 + clip", "1 + clip, 1 + clip", "rewards", "the lower bound lost"),
        ("torch.maximum", "torch.minimum", "rewards", "the optimist's bound"),
        ("limited) * mask", "limited)", "rewards", "padding learns"),
        ("(limited > plain)", "(limited >= plain)", "rewards", "everything counts as clipped"),
        ("ratio - 1 - log_ratio", "1 - ratio - log_ratio", "rewards", "the sign of the KL"),
        ("(ratio * mask)", "ratio", "rewards", "padding has a ratio"),
    ),
    *bugs("rewards.value_loss",
        ("0.5 *", "", "rewards", "the half forgotten"),
        ("torch.maximum", "torch.minimum", "rewards", "the optimist's bound"),
        ("(value - old).clamp(-clip, clip)", "(value - old)", "rewards", "no clip"),
        ("limited - returns", "limited + returns", "rewards", "the sign of the return"),
        ("(worst * mask)", "worst", "rewards", "padding learns"),
    ),
    *bugs("rewards.explained_variance",
        ("1 - masked", "masked", "rewards", "unexplained instead"),
        ("returns - values", "returns + values", "rewards", "the sign of the value"),
        ("float(spread) == 0.0", "float(spread) < 0.0", "rewards", "divided by nothing"),
    ),
    *bugs("rewards.adapt_kl_coef",
        ("kl / target - 1.0", "1.0 - kl / target", "rewards", "the wrong way"),
        ("episodes / horizon", "horizon / episodes", "rewards", "upside down"),
        (", 0.2)", ", 2.0)", "rewards", "the clip ten times as wide"),
        ("kl_coef * (1.0 + ", "kl_coef + (", "rewards", "added instead of multiplied"),
    ),
    # --- kernels ---
    *bugs("kernels._Attention.forward",
        ("mul_(scale)", "div_(scale)", "kernels: lean_attention_is_attention", "divided by the scale"),
        ("scores += mask", "scores -= mask", "kernels: lean_attention_is_attention", "the mask turned round"),
    ),
    *bugs("kernels._Attention.backward",
        ("d_p, p, -1", "d_p * 2, p, -1", "kernels: lean_attention_is_attention", "twice the gradient of the scores"),
        (".mul_(ctx.scale)", "", "kernels: lean_attention_is_attention", "the scale forgotten"),
        ("torch.matmul(p.transpose(2, 3), g)", "torch.matmul(p.transpose(2, 3), -g)", "kernels: lean_attention_is_attention", "the sign of the values' gradient"),
        ("torch.matmul(d_s, k)", "torch.matmul(d_s, -k)", "kernels: lean_attention_is_attention", "the sign of the queries' gradient"),
        ("torch.matmul(d_s.transpose(2, 3), rows)", "torch.matmul(d_s.transpose(2, 3), -rows)", "kernels: lean_attention_is_attention", "the sign of the keys' gradient"),
    ),
    *bugs("kernels.LeanNorm.forward",
        (".add_(epsilon)", "", "kernels: the_norm_of_next_to", "epsilon forgotten"),
        (".rsqrt_()", ".sqrt_()", "kernels: lean_norm_is_rms_norm", "multiplied by the norm"),
        ("weight * unit", "unit", "kernels: lean_norm_is_rms_norm", "the weight forgotten"),
    ),
    *bugs("kernels.LeanNorm.backward",
        ("value=-1", "value=1", "kernels: lean_norm_is_rms_norm", "the sign of the projection"),
        (".mul_(inverse)", "", "kernels: lean_norm_is_rms_norm", "not divided by the norm"),
        ("(d_y * weight)", "d_y", "kernels: lean_norm_is_rms_norm", "the weight forgotten"),
    ),
    *bugs("kernels.LoraProduct.forward",
        ("(b * scale)", "b", "kernels: the_adapter_product", "the scale forgotten"),
        ("y.addmm_(narrow, low_b.T)", "y.addmm_(-narrow, low_b.T)", "kernels: the_adapter_product", "the sign of the adapter"),
    ),
    *bugs("kernels.LoraProduct.backward",
        (" * ctx.scale", "", "kernels: the_adapter_product", "B learns without the scale"),
        (".addmm_(g_narrow, low_a)", "", "kernels: the_adapter_product", "no gradient through the adapter"),
        ("g_narrow.T @ flat", "-g_narrow.T @ flat", "kernels: the_adapter_product", "the sign of A's gradient"),
    ),
    *bugs("kernels.TokenLogprob.forward",
        ("weight[token[rows]] - logits @ weight", "logits @ weight - weight[token[rows]]", "kernels: token_logprobs_are", "the sign of the gradient"),
        (") / heat", ")", "kernels: token_logprobs_are", "the temperature forgotten in the gradient"),
        ("begin + HEAD_ROWS)", "begin + HEAD_ROWS - 1)", "kernels: token_logprobs_are", "one row of each chunk left out"),
    ),
    *bugs("kernels.TokenLogprob.backward",
        ("slope * d_logprob", "slope + d_logprob", "kernels: token_logprobs_are", "added instead of multiplied"),
    ),
    *bugs("kernels._softmax_part",
        ("/ heat", "* heat", "kernels: token_logprobs_are", "multiplied by the temperature"),
        (".log()", "", "kernels: token_logprobs_are", "a probability for its logarithm"),
        (".float() - normaliser", ".float() + normaliser", "kernels: token_logprobs_are", "the sign of the normaliser"),
        ("normaliser - (p * hot)", "normaliser + (p * hot)", "kernels: entropy_comes_with", "the sign of the mean logit"),
    ),
    # --- sampling ---
    *bugs("rollout.uniforms",
        ("index + 1", "1", "rollout: uniform_numbers_differ", "every token the same number"),
        ("2.0**-53", "2.0**-52", "rollout: answers_come_in_order", "numbers up to two"),
    ),
    *bugs("rollout.cut",
        ("ordered.cumsum(-1) - ordered", "ordered.cumsum(-1)", "rollout: nucleus", "the token that reaches the share left out"),
        ("before < top_p", "before <= top_p", "rollout: a_share_that_is_reached", "a token too many where the share is reached exactly"),
        ("ordered * (before < top_p)", "ordered", "rollout: nucleus", "nothing left out"),
        (">= min_p *", "<= min_p *", "rollout: min_p", "the unlikeliest are kept"),
        ("weights.amax(-1, keepdim=True)", "weights.sum(-1, keepdim=True)", "rollout: min_p", "a share of all instead of the heaviest"),
    ),
    *bugs("rollout._likeliest",
        ("min(top_k,", "min(top_k + 1,", "rollout: top_k_1", "one token too many"),
    ),
    *bugs("rollout.penalised",
        ("scores / penalty, scores * penalty", "scores * penalty, scores / penalty", "rollout: penal", "a repetition is rewarded"),
        ("scores > 0", "scores < 0", "rollout: penal", "the signs exchanged"),
    ),
    *bugs("rollout._draw_near",
        ("- weights.sum(-1).log()", "+ weights.sum(-1).log()", "rollout: as_often_as", "the sign of the normaliser"),
        (".float() / heat - top", ".float() - top", "rollout: sampled_log_prob", "the temperature forgotten in the log-probability"),
        ("scores /= heat", "scores *= heat", "rollout: sampled_log_prob", "multiplied by the temperature"),
    ),
    *bugs("rollout.invert",
        ("mark - before", "mark", "rollout: the_inverse_cdf_within", "the sum before the block not taken off"),
        ("(block - 1).clamp(min=0)", "block", "rollout: the_inverse_cdf_over", "the sum of the block itself taken off"),
        ("block * BLOCK + step_on", "step_on", "rollout: the_inverse_cdf_over", "the block's place forgotten"),
    ),
    *bugs("rollout.step_on",
        ("ladder, mark, right=True", "ladder, mark, right=False", "rollout: the_inverse_cdf_of", "a token of no weight"),
    ),
    *bugs("rollout.batches",
        ("room = batch_size", "room = batch_size + 1", "rollout: batches_are_sorted", "one answer too many"),
    ),
    *bugs("cache.fewer_prompts",
        ("(renamed, stay)", "(at, stay)", "cache: a_prompt_goes", "answers ask the prompts by their old numbers"),
        ("> (1 - SPARE) * prompts", ">= SPARE * prompts", "cache: a_prompt_goes", "prompts that nobody asks stay"),
    ),
    *bugs("cache.keep_rows",
        ("shared[0].at[order]", "shared[0].at[: len(order)]", "cache: a_wide_cache", "the order forgotten"),
    ),
    *bugs("cache.SharedLayer.attend",
        ("new = self.filled - self.far", "new = self.filled - self.far - 1", "cache: a_wide_cache", "a token put where the one before is"),
    ),
    *bugs("decoding._attend",
        ("half, F(told.scale)", "half, F(1)", "decoding: worked_by_hand", "the scale forgotten"),
        ("first = first // _LANES * _LANES", "first = far // _LANES * _LANES", "decoding: plain_formula", "seen columns of the prompt skipped"),
        ("prompt_of[row + many] == prompt", "prompt_of[row] == prompt", "decoding: plain_formula", "answers attend to the prompt of another"),
        ("_add(s, line + first, far - first, hide, at + first)", "_add(s, line + first, far - first, hide, at)", "decoding: plain_formula", "the mask of the prompt shifted"),
        ("_add(s, line + wide, new + ONE, hide, at + far)", "_add(s, line + wide, new + ONE, hide, at + wide)", "decoding: plain_formula", "the mask of the answer shifted"),
        ("for i in range(far, wide)", "for i in range(wide, wide)", "decoding: plain_formula", "what fills the prompt up is attended to"),
        ("for i in range(new + ONE, near)", "for i in range(new + U(2), near)", "decoding: changes_no_bit", "one column too many"),
        ("(at + h + kv + k) * d + i", "(at + h + k) * d + i", "decoding: plain_formula", "the key for the value"),
        ("/ total[n * group + r]", "/ total[r]", "decoding: plain_formula", "the normaliser of another answer"),
        ("((row + n) * h + k * group + r) * d", "((row + n) * h + r * kv + k) * d", "decoding: plain_formula", "heads and groups exchanged"),
    ),
    *bugs("decoding._norm_row",
        ("total += number * number", "total = number * number", "decoding: a_norm_worked", "the last square for the sum"),
        ("total / F(d)", "total", "decoding: a_norm_worked", "the sum of squares for their mean"),
        ("+ epsilon", "", "decoding: a_norm_worked", "ε forgotten"),
        ("out[begin + i] = ", "out[i] = ", "decoding: a_norm_is", "every row put where the first is"),
    ),
    *bugs("decoding._turn",
        ("- right * widen", "+ right * widen", "decoding: plain_formula", "turned the other way"),
        ("cos[angle + half + i]", "cos[half + i]", "decoding: plain_formula", "the position of another answer"),
    ),
    *bugs("decoding._softmax",
        ("s[begin + i] = weight", "s[begin + i] = top", "decoding: worked_by_hand", "scores for weights"),
    ),
    *bugs("decoding._top",
        ("range(count)", "range(count - ONE)", "decoding: largest_of_a_row", "the last one forgotten"),
    ),
    *bugs("decoding._exp",
        ("F(-87.0)", "F(-1.0)", "decoding: two_units", "small powers lost"),
        ("np.int32(127)", "np.int32(126)", "decoding: two_units", "half of it"),
    ),
    *bugs("decoding._rounded",
        (" + odd)", ")", "decoding: as_pytorch_rounds", "halves rounded down"),
        ("near if x == x else np.uint16(0x7FC0)", "near", "decoding: as_pytorch_rounds", "a NaN becomes a number"),
    ),
    *bugs("decoding._product",
        ("a[1] + row * step_a", "a[1]", "decoding: plain_formula", "the first rows for all"),
        ("column // _LANES * b[3]", "column", "decoding: plain_formula", "blocks of columns read as lines"),
    ),
    # --- models ---
    *bugs("soft_prompts.with_vectors",
        ("old[rare]", "old[0]", "soft_prompts: head_that_is_tied", "the row of another word"),
        ("tie_word_embeddings = False", "tie_word_embeddings = True", "soft_prompts: head_that_is_tied", "the head says the vectors"),
    ),
    *bugs("modeling.collate",
        ("b * length + head - 1", "b * length + head", "modeling: log_probabilities_are", "the first token is predicted by itself"),
        ("at, at + written - 1) + b * length", "at + 1, at + written) + b * length", "modeling: log_probabilities_are", "each token predicted by itself"),
        ("head, head + size)", "at, at + size)", "modeling: answers_behind_one", "positions counted through the neighbours"),
        ("last[n] = b * length + at + size - 1", "last[n] = b * length + at + size - 2", "scoring: the_score_is_read_at", "the score read before the end"),
        ("segments[b, at : at + size] = number", "segments[b, at : at + size] = 1", "modeling: answers_behind_one", "neighbours see one another"),
        ("mask[n, :written] = True", "mask[n, :] = True", "modeling: log_probabilities_are", "padding counts"),
    ),
    *bugs("modeling.attention_mask",
        ("(segments >= 0)", "(segments >= -1)", "modeling: padding_is_seen_by", "padding is seen"),
        ("(theirs == 0) | (theirs == ours)", "theirs == ours", "modeling: answers_behind_one", "answers do not see their prompt"),
        ("(theirs == 0) | (theirs == ours)", "theirs <= ours", "modeling: answers_behind_one", "answers see those before them"),
        (".tril()", "", "modeling: answers_behind_one", "the future is seen"),
    ),
    *bugs("modeling.judged_ids",
        ("answer[-1] == eos", "answer[-1] != eos", "modeling: judged_text_ends_with", "two ends or none"),
        ("answer if answer and", "answer if", "modeling: judged_text_ends_with", "an empty answer"),
    ),
    *bugs("modeling.pick",
        ("batch.source[batch.mask]", "batch.source[batch.mask] + 1", "modeling: log_probabilities_are", "the state behind the token"),
    ),
    *bugs("adapters.merged_weight",
        ("alpha=layer.scaling[ADAPTER]", "alpha=1", "modeling: packed_merges_the_adapter", "the scale forgotten"),
    ),
    *bugs("adapters.reference",
        ("layer._disable_adapters = True", "layer._disable_adapters = False", "modeling: packed_merges_the_adapter", "the reference is the policy"),
    ),
    # --- scores ---
    *bugs("scoring.Normalisation.apply",
        ("raw - self.mean", "raw + self.mean", "scoring: normalised_scores_have", "the sign of the mean"),
        ("/ self.std", "* self.std", "scoring: normalised_scores_have", "multiplied by the spread"),
    ),
    *bugs("scoring.fit_normalisation",
        ("correction=0", "correction=1", "scoring: normalised_scores_have", "another divisor"),
        ("std > 0", "std >= 0", "scoring: equal_scores_keep_their", "divided by nothing"),
    ),
    *bugs("scoring.fit_window",
        ("<= max_length", "< max_length", "scoring: a_prompt_that_fits", "a row that fits is cut"),
        ("prompt[-room:]", "prompt[:room]", "scoring: a_long_prompt_loses", "a prompt loses its end"),
        ("answer[-(max_length - len(kept)) :]", "answer[: max_length - len(kept)]", "scoring: a_long_prompt_loses", "an answer loses its end"),
    ),
    # --- figures ---
    *bugs("statistics.wilson",
        ("share * (1 - share) / n + z * z / (4 * n * n)", "share * (1 - share) / n", "statistics: wilson_is_that_of_scipy", "the correction forgotten"),
        ("z * z / (2 * n)", "z * z / n", "statistics: wilson_is_that_of_scipy", "the centre off"),
    ),
    *bugs("statistics.clustered_share",
        ("sums - p * sizes", "sums - p", "statistics: pairs_that_repeat_each", "clusters of unlike sizes"),
        ("max(1.0, variance", "max(0.0, variance", "statistics: pairs_that_balance", "clusters make it surer"),
        ("p in (0.0, 1.0)", "False", "statistics: all_right_is_not_certain", "certain of what was always right"),
        ("groups - 1)) ** 2", "groups - 1)) ** -2", "statistics: pairs_that_balance", "Student's t upside down"),
    ),
    *bugs("statistics.clustered_ratio",
        ("groups / (groups - 1) * ", "", "statistics: a_ratio_counts_clusters", "the factor of small samples"),
        ("s - ratio * n", "s - ratio", "statistics: a_ratio_counts_clusters", "clusters of unlike sizes"),
    ),
    *bugs("statistics.pair_outcomes",
        ("+ 1) / 2", ") / 2", "statistics: an_equal_score_is_half", "an equal score is wrong"),
    ),
    *bugs("statistics.kendall_tau_b",
        ("np.count_nonzero(dx) * np.count_nonzero(dy)", "len(dx) * len(dy)", "statistics: tau_b_is_that_of_scipy", "ties forgotten (τ-a)"),
        ("dx * dy", "abs(dx * dy)", "statistics: tau_b_is_that_of_scipy", "discord counts as accord"),
    ),
    *bugs("statistics.reliability",
        ("-np.abs(d)", "-d", "statistics: calibration_error_by", "the better one's chance for the winner's"),
        ("- 1, 0, bins - 1", ", 0, bins - 1", "statistics: a_pair_falls_into_the", "one bin too high"),
    ),
    *bugs("statistics.expected_calibration_error",
        ("point.pairs * abs(", "abs(", "statistics: calibration_error_by", "empty bins weigh as much"),
        ("abs(point.accuracy - point.confidence)", "(point.accuracy - point.confidence)", "statistics: calibration_error_by", "too sure and too shy cancel"),
    ),
    *bugs("statistics._bootstrap_mean",
        ("[0.025, 0.975]", "[0.05, 0.95]", "statistics: the_bootstrap_interval", "ninety for ninety-five per cent"),
    ),
    *bugs("statistics.paired_bootstrap",
        ("after, dtype=np.float64) - ", "after, dtype=np.float64) + ", "statistics: the_bootstrap_interval", "a sum for a gain"),
    ),
    *bugs("statistics.distinct",
        ("range(n)", "range(n - 1)", "statistics: distinct_by_hand", "runs one word too short"),
    ),
    *bugs("statistics.best_of_kl",
        ("- (n - 1) / n", "- (n + 1) / n", "statistics: the_best_of_n_costs", "the bound off"),
    ),
    *bugs("statistics.best_of_weights",
        ("math.comb(i, n - 1)", "math.comb(i + 1, n)", "statistics: chances_to_be_the_best", "drawn up to it instead of it the highest"),
        ("for i in range(m)", "for i in range(1, m + 1)", "statistics: chances_to_be_the_best", "shifted by one"),
    ),
    *bugs("statistics.best_of",
        ("weights[end - size : end].mean()", "weights[end - 1]", "statistics: equal_answers_are_chosen", "ties go to the last"),
        ("share[place] @ worth", "share[place] @ one", "statistics: the_best_of_two_by", "what chooses is counted"),
    ),
    *bugs("statistics.GaoCurve.at",
        ("self.alpha - self.beta", "self.alpha + self.beta", "statistics: best_of_n_bends_with", "the sign of the decline"),
        ("self.start + ", "", "statistics: best_of_n_bends_with", "the start forgotten"),
    ),
    *bugs("statistics.fit_gao",
        ("-d * d if", "d * d if", "statistics: best_of_n_bends_with", "the sign of β"),
        ("np.sqrt(", "(", "statistics: best_of_n_bends_with", "KL for its root"),
    ),
    *bugs("reports.reward_report",
        ("np.negative(r.ranks)", "r.ranks", "reports", "the sign of the rank correlation"),
        ("flat[better] - flat[worse]", "flat[worse] - flat[better]", "reports", "better and worse exchanged"),
    ),
    *bugs("reports._information",
        ("entropy(p.mean(1)) - entropy(p).mean(1)", "entropy(p.mean(1))", "parts", "noise counts as disagreement"),
    ),
    *bugs("reports._alike",
        ("float(sign > 0)", "float(sign < 0)", "reports", "discord counts as accord"),
        (" if sign]", "]", "reports", "ties count"),
    ),
    # --- the policy's stages ---
    *bugs("critics.calibrate",
        ("target - slope * mean", "target + slope * mean", "ppo: critic_begins", "the sign of the offset"),
        ("(values - mean) * (scores - target)", "values * scores", "ppo: critic_begins", "means not taken off"),
    ),
    *bugs("critics.head_of",
        ("(offset - scale.mean)", "(offset + scale.mean)", "parts", "the sign of the mean"),
    ),
    *bugs("alarms._parted",
        ("fall <= ERRORS * error", "fall >= ERRORS * error", "alarms", "calm is an alarm"),
        ("now[proxy] <= best[proxy]", "now[proxy] >= best[proxy]", "alarms", "the proxy's rise turned round"),
        ("best[name] - now[name]", "now[name] - best[name]", "alarms", "the sign of the fall"),
    ),
    *bugs("alarms._spread",
        ("2 * spreads[0] > 0", "spreads[0] > 0", "alarms", "any rise is a doubling"),
    ),
    *bugs("alarms.over_budget",
        ("kl <= budget", "kl >= budget", "alarms", "the budget turned round"),
    ),
    *bugs("calibration.fit_temperature",
        ("(d.size + 1) / (d.size + 2)", "1.0", "calibration", "infinite certainty"),
        ("b * d / 2", "b * d", "calibration", "the tangent's half"),
        ("if slope(middle) < 0", "if slope(middle) > 0", "calibration", "the wrong half kept"),
        ("return 1 / math.sqrt(low * high)", "return math.sqrt(low * high)", "calibration", "coldness for temperature"),
    ),
    *bugs("calibration.crossed_calibration_error",
        ("fit_temperature(d[~inside])", "fit_temperature(d[inside])", "calibration", "fitted to what is tested"),
        ("d[inside] / fit", "d[inside] * fit", "calibration", "heated instead of cooled"),
    ),
    *bugs("ptx.Ptx.chosen",
        ("at % len(self.rows)]", "0]", "ppo_modes: every_pair_comes_once", "the same pair again and again"),
    ),
    *bugs("ptx.Ptx.backward",
        ("-logprob.sum() / tokens", "logprob.sum() / tokens", "ppo_modes: next_token_loss", "the sign of the loss"),
        ("/ tokens", "/ len(rows)", "ppo_modes: next_token_loss", "long answers weigh more"),
    ),
    *bugs("policy_reports.win_rate",
        ("policy[:, :, None] - reference[:, None, :]", "reference[:, :, None] - policy[:, None, :]", "policy_reports", "wins are losses"),
    ),
    *bugs("policy_reports._gain",
        ("after.mean() - before.mean()", "before.mean() - after.mean()", "policy_reports", "the sign of the gain"),
    ),
    *bugs("policy_reports.figures",
        ("-one.logprob", "one.logprob", "policy_reports: figures_of_one_side", "the sign of the entropy"),
        ("surprise.sum(1)", "surprise.mean(1)", "policy_reports: figures_of_one_side", "nats an answer over tokens of all"),
        ("[len(one.ids) for", "[len(one.ids) - one.finished for", "policy_reports: figures_of_one_side", "the end is no token"),
    ),
    *bugs("policy_reports.Side.first",
        ("% many < count", "% many <= count", "policy_reports: comparison_takes", "one answer too many"),
        ("place % many", "place // many", "policy_reports: comparison_takes", "the first prompts for the first answers"),
    ),
    *bugs("judging.judge_texts",
        ("raw[0].to(score.device)", "raw[0].to(score.device) * 2", "judging: verdict_on_texts", "another scale"),
        ("reader.judge.normalisation.apply(raw[0].to(score.device))", "raw[0].to(score.device)", "judging: verdict_on_texts", "not normalised"),
        ("own[1:]", "own[:-1]", "judging: verdict_on_texts", "the mean among the members"),
        ("for (place, _, _), raw in zip(asked", "for place, raw in zip(range(len(asked))", "judging: verdict_on_texts", "the score of another answer"),
    ),
    *bugs("judging.judge_tokens",
        ("scale.apply(raw)", "raw", "ppo_modes: members_that_are_adapters", "members not normalised"),
        ("scale.apply(scorer.head(ends)[:, 0].float())", "scorer.head(ends)[:, 0].float()", "ppo_modes: members_that_are_adapters", "not normalised"),
    ),
    *bugs("judging.keep_states",
        ("features[place,", "features[: len(place),", "judging: states_of_an_answer", "the states of another answer"),
    ),
    *bugs("distributed.gather",
        ("for at in range(max(map(len, parts))) for part in parts if at < len(part)", "for part in parts for at in range(len(part))", "distributed: comes_back_in_its_order", "one process's items after the other's"),
    ),
    *bugs("distributed.sum_gradients",
        ("zeros_like(parameter)", "ones_like(parameter)", "distributed: gradients_are_added", "who learned nothing adds one"),
        (" if count]", "]", "distributed: gradients_are_added", "what nobody learned gets a gradient"),
        ("gradient.copy_(part.view_as(gradient))", "gradient.copy_(part.view_as(gradient) / ranks.world())", "distributed: gradients_are_added", "a mean for the sum"),
    ),
    *bugs("distributed.clip_gradients",
        ("clip_grad_norm_(learned, limit)", "clip_grad_norm_(learned[:1], limit)", "distributed: clipped_to_one", "the norm of the first one"),
    ),
    *bugs("episodes.length_mask",
        ("< lengths", "<= lengths", "parts", "one token of padding"),
    ),
    *bugs("stages.ppo.set_rates",
        ("linear(step, config", "linear(0, config", "ppo: rates_fall_in_a_line", "the rate never falls"),
        ("linear(step, config", "linear(step + 1, config", "ppo: rates_fall_in_a_line", "a last step of rate nought"),
        ("share * config.lr, share * config.critic_lr", "share * config.lr, config.critic_lr", "ppo: rates_fall_in_a_line", "the critic's rate stays"),
        ("else 1.0", "else 0.0", "ppo: rates_fall_in_a_line", "a constant rate of nought"),
    ),
    *bugs("stages.ppo.final_score",
        ("score - config.missing_eos_penalty", "score + config.missing_eos_penalty", "ppo: score_is_bounded", "a missing end is rewarded"),
        ("clamp(-config.score_clip, config.score_clip)", "clamp(-config.score_clip)", "ppo: score_is_bounded", "no upper bound"),
    ),
    *bugs("stages.ppo.targets_of",
        ("rollout.old, rollout.reference", "rollout.reference, rollout.old", "ppo: steers_to", "the sign of the KL"),
        ("KL_ESTIMATORS[config.kl_estimator]", 'KL_ESTIMATORS["k1"]', "ppo: steers_to", "one estimator for all"),
        ("learner.kl_coef", "config.kl_coef", "ppo: steers_to", "a weight that never adapts"),
        ("config.gamma, config.lam", "config.lam, config.gamma", "ppo: steers_to", "discount and λ exchanged"),
        ("if config.whiten:", "if True:", "ppo: steers_to", "whitened unasked"),
        ("return Targets(old_values, advantages", "return Targets(old_values, returns", "ppo: steers_to", "returns for advantages"),
    ),
    *bugs("stages.ppo.policy_backward",
        ("(found.loss / tokens)", "found.loss", "ppo: within_the_clip", "a sum over the minibatch's tokens"),
        ("(found.loss / tokens)", "(found.loss / mask.sum())", "ppo: within_the_clip", "a mean over each micro-batch"),
        ("config.clip)", "config.value_clip)", "ppo: within_the_clip", "the critic's clip"),
        ("config.temperature", "1.0", "ppo: within_the_clip", "the temperature of the sampler forgotten"),
    ),
    *bugs("stages.ppo.critic_backward",
        ("* loss / tokens", "* loss", "ppo: within_its_clip", "a sum over the minibatch's tokens"),
        ("config.vf_coef *", "", "ppo: within_its_clip", "the weight of the loss forgotten"),
        ("config.value_clip,", "config.clip,", "ppo: within_its_clip", "the policy's clip"),
        ("targets.old_values", "targets.returns", "ppo: within_its_clip", "clipped about the return"),
    ),
    *bugs("stages.ppo.clip_gradients",
        ("most or math.inf", "most", "ppo: clipped_apart", "no limit makes all of it nothing"),
        ("list(learner.weights.values())", "learner.learned()", "ppo: clipped_apart", "the critic shortens the policy's steps"),
    ),
    *bugs("stages.ppo.update",
        ("> config.target_kl", "< config.target_kl", "ppo: passes_end", "ends while it is near"),
        ("if config.target_kl and", "if", "ppo: passes_end", "no limit ends at once"),
        ("config.grad_clip", "0.0", "ppo: cut_to_the_length", "never clipped"),
    ),
    # --- text to pretrain on, and the other stages' losses ---
    *bugs("corpus.jaccard",
        ("len(other) - common", "len(other)", "corpus: similarity_is_the_share", "the common part counted twice"),
    ),
    *bugs("corpus.run_hashes",
        ("len(words) - RUN + 1", "len(words) - RUN", "corpus: similarity_is_the_share", "the last run forgotten"),
        ("at : at + RUN", "at : at + RUN - 1", "corpus: similarity_is_the_share", "runs one word too short"),
    ),
    *bugs("corpus.hold_out",
        ("at < border]", "at <= border]", "corpus: no_side_stays_empty", "a document on both sides"),
    ),
    *bugs("stages.pretrain.lay_out",
        ("np.insert(tokens, 0, end), closed", "closed, closed", "pretrain: every_token_is_foretold", "each token foretells itself"),
    ),
    *bugs("stages.pretrain.pack",
        ("np.repeat(np.arange(len(laid)), sizes) if apart", "np.repeat(np.arange(len(laid)), sizes) if not apart", "pretrain: every_token_is_foretold", "documents see one another"),
        ("np.full(room, IGNORED)", "np.full(room, pad)", "pretrain: every_token_is_foretold", "padding is learned"),
        ("place - np.maximum.accumulate", "place + np.maximum.accumulate", "pretrain: every_token_is_foretold", "positions go on"),
    ),
    *bugs("stages.pretrain.hide",
        ("(kind >= 0.8)", "(kind >= 0.6)", "pretrain: a_share_of_the_tokens", "thirty in a hundred become any token"),
        ("torch.where(chosen, rows.targets, IGNORED)", "rows.targets", "pretrain: a_share_of_the_tokens", "what is not hidden is foretold, too"),
    ),
    *bugs("stages.pretrain.sight",
        ("seen.tril()", "seen", "pretrain: the_causal_loss_is", "the future is seen"),
    ),
    *bugs("stages.pretrain.take_step",
        (".sum() / count", ".sum()", "pretrain: mean_over_all_its", "a sum over the step's tokens"),
        (".sum() / count", ".mean()", "pretrain: mean_over_all_its", "short rows weigh as much"),
        ("(rows.targets != IGNORED)", "(rows.targets == rows.targets)", "pretrain: mean_over_all_its", "divided by padding, too"),
    ),
    *bugs("stages.pretrain.token_losses",
        ("states[wanted]", "states.roll(1, 1)[wanted]", "pretrain: the_causal_loss_is", "the state before the token"),
        ("rows.targets != IGNORED", "rows.segments >= 0", "pretrain: masked_loss_counts", "what is not hidden counts"),
    ),
    *bugs("stages.pretrain.schedule",
        ("(step + 1) / rising", "step / rising", "pretrain: the_rate_rises_in_a", "a first step of rate nought"),
        ("0.1 + 0.45", "0.45", "pretrain: the_rate_rises_in_a", "down to nothing"),
    ),
    *bugs("schedules.linear",
        ("(step + 1) / rising", "step / rising", "parts: linear_rate", "a first step of rate nought"),
        ("(total - step)", "(total - step - 1)", "parts: linear_rate", "a last step of rate nought"),
    ),
    *bugs("stages.prefer.mean_margin",
        ("flat[pairs.better] - flat[pairs.worse]", "flat[pairs.worse] - flat[pairs.better]", "parts", "the sign of the margin"),
    ),
    *bugs("stages.bestofn.choose",
        ('line["score"] > held["score"]', 'line["score"] < held["score"]', "bestofn: the_best_answer", "the worst wins"),
        ('line["text"] and', '', "bestofn: the_best_answer", "an empty answer wins"),
    ),
    *bugs("stages.reward.bootstrap_shares",
        ("(drawn / drawn.mean(0))", "drawn", "ensemble: every_head_counts", "a head that counts more than once"),
        ("drawn.mean(0)", "drawn.mean(1, keepdim=True)", "ensemble: every_head_counts", "a ranking that all heads hear alike"),
        ("members == 1", "members == 0", "ensemble: the_draw_follows", "one head alone hears a draw"),
    ),
    *bugs("stages.reward.ensemble_loss",
        (".mean()", ".sum()", "ensemble: the_mean_over_the_heads", "a sum over the heads"),
        ("* shares.to(scores.device)", "", "ensemble: the_mean_over_the_heads", "shares forgotten"),
        ("pairs.weight[:, None] * ", "", "ensemble: adapters_learn_each", "weights forgotten"),
    ),
    *bugs("schedules.pairs_in",
        ("math.comb(count, 2)", "count", "parts: a_reward_run_settles", "answers for pairs"),
    ),
    *bugs("schedules.settled",
        ("max(FEWEST, ", "max(1, ", "parts: a_reward_run_settles", "a step of one long ranking"),
        ("math.sqrt(CALM", "(CALM", "parts: a_reward_run_settles", "a rate that falls with the steps, not their root"),
        ("min(1.0, ", "max(1.0, ", "parts: a_reward_run_settles", "a rate that rises where steps are few"),
    ),
    *bugs("stages.reward.batches_of",
        ("(0, 0, 0, length - len(one))", "(0, 0, length - len(one), 0)", "reward: kept_lower_states", "states beside their tokens"),
    ),
    *bugs("stages.reward.learn",
        (") / of", ")", "ensemble: adapters_learn_each", "a sum over the step's rankings"),
        (") / of", ") / len(rankings)", "ensemble: adapters_learn_each", "a mean over each micro-batch"),
        ("loss.item() / len(fit.learners)", "loss.item()", "ensemble: adapters_learn_each", "the members' losses added"),
        ("reversed(parts)", "parts", "ensemble: adapters_learn_each", "a member hears another's share"),
        ("columns[::-1]", "columns", "ensemble: adapters_learn_each", "the members' scores turned round"),
    ),
    *bugs("stages.reward.fresh_head",
        ("/ math.sqrt(head.in_features + 1)", "", "reward: fresh_head_is_drawn", "a head of width 1"),
    ),
    *bugs("stages.reward.pairs_right",
        ("flat[pairs.better] - flat[pairs.worse]", "flat[pairs.worse] - flat[pairs.better]", "parts", "better and worse exchanged"),
        (" & ~pairs.tied", "", "parts", "ties count"),
    ),
    *bugs("stages.prefer.choices_of",
        ("if distance and", "if", "parts", "ties are learned"),
        ("one.weight / mean", "one.weight", "parts", "weights not brought to mean 1"),
        ("distance == most", "distance == 1", "parts", "neighbours for the best and the worst"),
    ),
    *bugs("modeling.conversation_ids",
        ("[-(window - len(answer)) :]", "[: window - len(answer)]", "parts: implicit_reward_is", "a prompt loses its end"),
    ),
    *bugs("modeling.answer_ids",
        ("[*ids[: window - 2], tokenizer.eos_token_id]", "ids[: window - 2]", "parts", "no end to learn"),
    ),
    *bugs("stages.prefer.DPO.weigh",
        ("fixed + self.weight[:, None] *", "self.weight[:, None] *", "parts", "the value lost"),
        ("self.weight[:, None] *", "", "parts", "weights forgotten"),
    ),
    *bugs("stages.prefer.DPO.compute_loss",
        ("* len(weight)", "", "parts: part_of_a_dpo", "small parts weigh as much"),
        ("/ num_items_in_batch", "", "parts: part_of_a_dpo", "a sum over the step's pairs"),
        ("* ranks.world()", "", "parts: part_of_a_dpo", "several processes learn less"),
        ("[weight, weight]", "[weight, weight.flip(0)]", "parts: part_of_a_dpo", "worse answers by the weight of others"),
    ),
    *bugs("stages.prefer.implicit_rewards",
        ("(a - b)", "(b - a)", "parts: implicit_reward_is", "the sign of the reward"),
        ("opened.config.beta * ", "", "parts: implicit_reward_is", "β forgotten"),
    ),
    *bugs("stages.bestofn.Fit.compute_loss",
        ('["labels"][:, 1:]', '["labels"][:, :-1]', "parts: loss_of_the_winners", "each token predicted by itself"),
        ('reduction="sum"', 'reduction="mean"', "parts: loss_of_the_winners", "short answers weigh as much"),
        ("/ num_items_in_batch", "", "parts: loss_of_the_winners", "a sum over the step's tokens"),
        ("* ranks.world()", "", "parts: loss_of_the_winners", "several processes learn less"),
    ),
    *bugs("stages.sft.measure",
        ("row.ids[row.prompt :])", "row.ids)", "trials: held_out_answers", "the prompt's tokens count"),
        ("-value", "value", "trials: held_out_answers", "the sign"),
    ),
    *bugs("stages.sft.Fit.compute_loss",
        ("tokens / num_items_in_batch", "1", "sft: rows_of_like_length", "a pass of few tokens counts as much"),
    ),
    *bugs("trl_loop.narrowed",
        ("[:, :-1][mask]", "[:, 1:][mask]", "trl_loop: within_the_head", "each token predicted by itself"),
        ("hook.remove()", "pass", "trl_loop: within_the_head", "narrowed for good"),
    ),
    *bugs("trl_loop.narrow_head",
        ("following[mask][None]", "following.roll(1, 1)[mask][None]", "trl_loop: the_narrowed_head", "the token before"),
        ("masked_scatter(mask, outputs[name])", "masked_scatter(mask.flip(0), outputs[name])", "trl_loop: the_narrowed_head", "figures at other tokens"),
        ("outputs.label_mask = mask", "pass", "trl_loop: the_narrowed_head", "the mask of the narrow row"),
    ),
    *bugs("trl_loop.parts_of",
        ("max(lengths[row]", "min(lengths[row]", "trl_loop: rows_of_like", "as wide as the shortest"),
        ("column[rows,", "column[sorted(rows),", "trl_loop: rows_of_like", "rows of one column moved"),
    ),
    *bugs("trl_loop.Parted.training_step",
        ("sum(step(model, part, *rest) for part in parts)", "step(model, parts[0], *rest)", "sft: rows_of_like_length", "the other rows forgotten"),
    ),
    *bugs("stages.sft.row_of",
        ("len(prompt))", "len(prompt) + 1)", "parts", "the first token of the answer not learned"),
    ),
    *bugs("episodes.sampler_gap",
        (".abs()", "", "parts", "gaps of both signs cancel"),
    ),
    *bugs("trials.logprobs",
        ("values.double().sum(-1)", "values.double().mean(-1)", "trials: a_log_probability_is", "a mean over the tokens"),
        ("batch, temperature)", "batch, 1.0)", "trials: a_log_probability_is", "the temperature forgotten"),
        ("zip(bucket, values", "zip(sorted(bucket), values", "trials: neither_padding", "the number of another answer"),
    ),
    *bugs("trials.kl",
        ("a - b for", "b - a for", "trials: the_kl_is_the_mean", "the sign of the KL"),
        ("/ len(rows)", "", "trials: the_kl_is_the_mean", "a sum for a mean"),
        ("manner.temperature", "1.0", "trials: the_kl_is_the_mean", "the temperature forgotten"),
        ("ids[one.prompt]", "ids[one.n]", "trials: the_kl_is_the_mean", "behind the prompt of another"),
    ),
    *bugs("trials.Tried.by_prompt",
        ("/ answers", "", "parts", "sums for means"),
    ),
]
# fmt: on


def plant(mutant: Mutant) -> None:
    """Give the function its wrong body, wherever it is known already."""
    module_name, function = find(mutant)
    source = textwrap.dedent(inspect.getsource(function))
    found = source.count(mutant.right)
    assert found == 1, f"{mutant.place} has {found} of {mutant.right!r}: mend the table"
    lines = source.replace(mutant.right, mutant.wrong).splitlines()
    while not lines[0].startswith(("def ", "class ")):
        del lines[0]  # decorators stay where they are
    name, around = function.__name__, function.__code__.co_freevars
    if around:  # super() asks what stands around the function for its class
        body = textwrap.indent("\n".join(lines), "    ")
        lines = [f"def holder({', '.join(around)}):", body, f"    return {name}"]
    # The line of __future__ as in the module: annotations must not be looked up.
    text = "from __future__ import annotations\n" + "\n".join(lines)
    module = importlib.import_module(module_name)
    space = dict(vars(module))
    exec(compile(text, f"<{mutant.bug}>", "exec"), space)  # noqa: S102 - our own source
    made = space["holder"](*around) if around else space[name]
    function.__code__ = made.__code__
    if isinstance(getattr(module, function.__name__, None), Dispatcher):
        compile_anew(module)


def compile_anew(module: ModuleType) -> None:
    """Forget what numba made of the module's functions, here and on the disk."""
    numba.config.CACHE_DIR = tempfile.mkdtemp(dir=numba.config.CACHE_DIR)
    module._worker.cache_clear()
    for one in vars(module).values():
        if isinstance(one, Dispatcher):
            one._reset_overloads()


def find(mutant: Mutant) -> tuple[str, Any]:
    """The module and the plain function, out of its decorators."""
    parts = mutant.place.split(".")
    depth = 2 if parts[0] == "stages" else 1
    module_name = ".".join(["trainer", *parts[:depth]])
    found = functools.reduce(getattr, parts[depth:], importlib.import_module(module_name))
    return module_name, inspect.unwrap(found)


class Planting:
    """A pytest plugin: in the place of one run of the tests, one for each mutant, forked."""

    def __init__(self, mutants: Sequence[Mutant]) -> None:
        self.mutants = mutants
        self.codes: list[tuple[int, int]] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Before each mutant its tests run on the code as it is, once for the same ones."""
        sound: dict[str, int] = {}
        for mutant in self.mutants:
            items = [one for one in session.items if mutant.tests in one.name]
            if mutant.tests not in sound:
                sound[mutant.tests] = self.fork(session, items, None)
            self.codes.append((sound[mutant.tests], self.fork(session, items, mutant)))
        return True

    def fork(self, session: pytest.Session, items: list[pytest.Item], mutant: Mutant | None) -> int:
        """How these tests end in a child in which the mutant is planted."""
        pid = os.fork()
        if not pid:
            code = BROKEN
            try:
                signal.alarm(PATIENCE)
                if mutant is not None:
                    plant(mutant)
                for item, following in zip_longest(items, items[1:]):
                    if not session.testsfailed:
                        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                code = NOTHING if not items else RED if session.testsfailed else PASSED
            except BaseException:  # noqa: BLE001 - nothing may escape into the parent
                traceback.print_exc()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@functools.cache
def outcomes(file: str) -> dict[Mutant, tuple[int, int]]:
    """(code without it, code with it) of every mutant that this file of tests must see."""
    mutants = [one for one in MUTANTS if one.file == file]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ended = forked.run(lambda: run_file(file, mutants, folder), folder / "output", 600.0)
        assert ended.code == 0, ended.output
        found = json.loads((folder / "codes.json").read_text("utf-8"))
    return {mutant: (before, after) for mutant, (before, after) in zip(mutants, found, strict=True)}


def run_file(file: str, mutants: Sequence[Mutant], folder: Path) -> int:
    """Collect the file's tests once and run them with each mutant."""
    settings = folder / "pytest.ini"
    settings.write_text(f"[pytest]\npythonpath = {ROOT}\naddopts = --import-mode=importlib\n")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["NUMBA_OPT"] = "0"  # each bug is compiled: quickly, though slow code comes out
    numba.config.reload_config()
    numba.config.CACHE_DIR = str(folder)
    planting = Planting(mutants)
    options = ["-q", "-c", str(settings), "--rootdir", str(ROOT), "--noconftest", "-s"]
    options += ["-p", "no:cacheprovider", "--basetemp", str(folder / "tmp")]
    code = int(pytest.main([*options, str(HERE / f"test_{file}.py")], plugins=[planting]))
    (folder / "codes.json").write_text(json.dumps(planting.codes), "utf-8")
    return code if len(planting.codes) != len(mutants) else 0


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{one.place}: {one.bug}" for one in MUTANTS])
def test_a_planted_bug_turns_a_test_red(mutant: Mutant) -> None:
    before, after = outcomes(mutant.file)[mutant]
    assert before == PASSED, f"the tests {mutant.tests!r} do not pass (or are none) without the bug"
    assert after == RED, f"no test {mutant.tests!r} of {mutant.file} sees it"
