"""From conversations to scores: what the model reads, where the score is read, windows, batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.tiny import make_tiny, make_tiny_encoder, make_tiny_reward
from trainer.events import RunError
from trainer.modeling import collate
from trainer.placement import Placement
from trainer.scoring import (
    Judge,
    Normalisation,
    batch_scores,
    can_share,
    encode,
    fit_normalisation,
    fit_window,
    load_judge,
    read_normalisation,
    score_answers,
    split,
)

CPU = Placement(torch.device("cpu"), torch.float32)
PROMPT = ({"role": "user", "content": "how was the tea"},)
TEXTS = ("good tea", "the tea was not very warm and not good", "bad", "")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Random weights everywhere, so that everything that is read matters."""
    path = make_tiny(tmp_path_factory.mktemp("judge"))
    torch.manual_seed(2)
    from transformers import LlamaForSequenceClassification

    from tests.tiny import tiny_config

    model = LlamaForSequenceClassification(tiny_config(num_labels=1))
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(str(path))
    return load_judge(path, CPU, 128)


def plainly(judge: Judge, ids: list[int]) -> float:
    """The model's own forward pass on one sequence."""
    with torch.no_grad():
        return float(judge.model(input_ids=torch.tensor([ids])).logits[0, 0])


def scores_of(judge: Judge, rows: Any) -> list[float]:
    batch = collate(rows, judge.tokenizer.pad_token_id)
    with torch.no_grad():
        scores: list[float] = batch_scores(
            judge.model, batch, judge.tokenizer.pad_token_id
        ).tolist()
    return scores


def test_an_answer_is_read_behind_its_prompt_with_one_end(judge: Judge) -> None:
    prompt, answers = encode(judge.tokenizer, PROMPT, TEXTS)
    said = judge.tokenizer.decode(prompt + answers[0])
    assert " ".join(said.split()) == "<user> how was the tea <end> <assistant> good tea <end>"
    end = judge.tokenizer.eos_token_id
    assert [answer.count(end) for answer in answers] == [1, 1, 1, 1]
    assert answers[3] == [end]


def test_padding_does_not_reach_beyond_the_positions_that_an_encoder_knows(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(
        str(make_tiny_encoder(tmp_path, scores=True)), max_position_embeddings=90
    )
    encoder = AutoModelForSequenceClassification.from_config(config).eval()
    ids = [token % 20 + 5 for token in range(90)]
    batch = collate([(ids[:60], [ids[60:]]), (ids[:20], [ids[70:]])], pad=0)
    assert batch.ids.shape == (2, 96)
    with torch.no_grad():
        found = batch_scores(encoder, batch, 0)
        plain = encoder(input_ids=torch.tensor([ids])).logits[0, 0]
    assert float(found[0]) == pytest.approx(float(plain), abs=1e-5)


def test_the_score_is_read_at_the_last_real_token(judge: Judge) -> None:
    prompt, answers = encode(judge.tokenizer, PROMPT, TEXTS)
    wanted = [plainly(judge, prompt + answer) for answer in answers]
    assert len(set(wanted)) == 4
    assert scores_of(judge, split((prompt, answers))) == pytest.approx(wanted, abs=1e-5)


def test_padding_does_not_change_a_score(judge: Judge) -> None:
    prompt, answers = encode(judge.tokenizer, PROMPT, TEXTS)
    rows = split((prompt, answers))
    alone = [scores_of(judge, [row])[0] for row in rows]
    assert scores_of(judge, rows) == pytest.approx(alone, abs=1e-5)
    longer = [*rows, (prompt * 3, [answers[1] * 2])]
    assert scores_of(judge, longer)[:4] == pytest.approx(alone, abs=1e-5)


def test_answers_that_share_a_prompt_do_not_see_each_other(judge: Judge) -> None:
    row = encode(judge.tokenizer, PROMPT, TEXTS)
    assert can_share(judge.model, [row], judge.tokenizer.pad_token_id)
    assert scores_of(judge, [row]) == pytest.approx(scores_of(judge, split(row)), abs=1e-5)


def test_scores_come_back_in_the_order_asked(judge: Judge) -> None:
    asked = [(PROMPT, TEXTS), (PROMPT, TEXTS[::-1]), (PROMPT, TEXTS[1:2])]
    few = score_answers(judge, asked, token_budget=20)
    many = score_answers(judge, asked, token_budget=4096)
    assert few[0] == pytest.approx(many[0], abs=1e-5)
    assert few[1] == pytest.approx(few[0][::-1], abs=1e-5)
    assert few[2] == pytest.approx([few[0][1]], abs=1e-5)


def test_packed_weights_give_the_same_scores(judge: Judge) -> None:
    prompt, answers = encode(judge.tokenizer, PROMPT, TEXTS)
    wanted = [plainly(judge, prompt + answer) for answer in answers]
    assert score_answers(judge, [(PROMPT, TEXTS)], token_budget=64)[0] == pytest.approx(
        wanted, abs=1e-4
    )


def test_after_each_batch_somebody_may_stop_it(judge: Judge) -> None:
    heard: list[int] = []
    score_answers(judge, [(PROMPT, TEXTS)], token_budget=8, after_batch=heard.append)
    assert heard == [1, 2, 3, 4]


# windows


def test_a_prompt_that_fits_is_shared() -> None:
    row = ([1, 2, 3], [[4, 9], [5, 6, 9]])
    assert fit_window(row, 6) == [row]


def test_a_long_prompt_loses_its_start_and_an_answer_never_its_end() -> None:
    row = ([1, 2, 3], [[4, 9], [5, 6, 7, 8, 9]])
    assert fit_window(row, 4) == [([2, 3], [[4, 9]]), ([3], [[7, 8, 9]])]


def test_a_cut_answer_still_ends_in_its_end(judge: Judge) -> None:
    short = Judge(judge.model, judge.tokenizer, judge.normalisation, max_length=5)
    prompt, answers = encode(judge.tokenizer, PROMPT, TEXTS)
    kept = (prompt + answers[1])[-5:]
    wanted = plainly(judge, [prompt[-1], *answers[1][-4:]])
    assert kept[-1] == judge.tokenizer.eos_token_id
    (scores,) = score_answers(short, [(PROMPT, [TEXTS[1]])], token_budget=64)
    assert scores == pytest.approx([wanted], abs=1e-4)


# normalisation


def test_normalised_scores_have_mean_0_and_deviation_1() -> None:
    raw = [1.0, 3.0, 5.0, 7.0]
    scale = fit_normalisation(raw)
    assert (scale.mean, scale.std) == (4.0, pytest.approx(5**0.5))  # (9 + 1 + 1 + 9) / 4 = 5
    normal = torch.tensor([scale.apply(score) for score in raw])
    assert normal.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert normal.std(correction=0).item() == pytest.approx(1.0)


def test_equal_scores_keep_their_scale() -> None:
    assert fit_normalisation([2.0, 2.0]) == Normalisation(2.0, 1.0)


def test_normalisation_is_read_as_it_was_written(tmp_path: Path) -> None:
    Normalisation(0.25, 2.0).write(tmp_path)
    assert read_normalisation(tmp_path) == Normalisation(0.25, 2.0)


def test_a_model_from_elsewhere_has_none(tmp_path: Path) -> None:
    assert read_normalisation(tmp_path) == Normalisation(0.0, 1.0)


@pytest.mark.parametrize("content", ["", "[]", '{"mean": 1}', '{"mean": 0, "std": 0}', "{"])
def test_a_damaged_normalisation_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "normalisation.json").write_text(content)
    with pytest.raises(RunError, match=r"normalisation\.json"):
        read_normalisation(tmp_path)


def test_a_reward_model_that_likes_a_word_is_heard(tmp_path: Path) -> None:
    judge = load_judge(make_tiny_reward(tmp_path, likes="good"), CPU, 128)
    (scores,) = score_answers(judge, [(PROMPT, ["good good tea", "warm red tea"])], token_budget=64)
    assert scores[0] > scores[1]
