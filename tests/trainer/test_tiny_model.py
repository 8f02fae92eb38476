"""The tiny model: its sentences have moods, its tokenizer loses nothing, its seed decides."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from tests.trainer.judging import read_lines
from trainer import tiny
from trainer.manifests import sha256_file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hardly trained: two steps."""
    return tiny.build(tmp_path_factory.mktemp("tiny") / "model", steps=2)


def test_every_word_has_the_mood_of_its_list() -> None:
    sentiment = SentimentIntensityAnalyzer()
    sign = {"glad": 1, "plain": 0, "sad": -1}
    for mood in tiny.MOODS:
        words = tiny.ADJECTIVES[mood].split() + tiny.FEELINGS[mood].split()
        for words_or_sentence in (*words, *tiny.REMARKS[mood]):
            score = sentiment.polarity_scores(words_or_sentence)["compound"]
            assert (score > 0.1) - (score < -0.1) == sign[mood], words_or_sentence


def test_topics_have_no_mood() -> None:
    sentiment = SentimentIntensityAnalyzer()
    for question in tiny.prompts():
        if not question.startswith("Did you like"):
            assert sentiment.polarity_scores(question)["compound"] == 0, question


def test_answers_to_one_question_differ_in_mood() -> None:
    """A preference for glad answers has something to choose from: deviation of four at least .4."""
    sentiment, dice = SentimentIntensityAnalyzer(), random.Random(0)
    deviations = []
    for _ in range(200):
        answers = [tiny.dialogue(dice)[1] for _ in range(4)]
        scores = [sentiment.polarity_scores(answer)["compound"] for answer in answers]
        deviations.append(statistics.stdev(scores))
    assert statistics.mean(deviations) > 0.4


def test_there_are_288_different_questions_in_a_fixed_order() -> None:
    questions = tiny.prompts()
    assert len(questions) == len(set(questions)) == 288
    assert questions == tiny.prompts()


def test_it_loads_and_keeps_its_prompts(built: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(str(built))
    assert 1e6 < model.num_parameters() < 4e6
    lines = read_lines(built / "prompts.jsonl")
    assert [line["prompt"][0]["content"] for line in lines] == tiny.prompts()
    assert len({line["id"] for line in lines}) == 288


def test_the_tokenizer_loses_nothing(built: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(built))
    for text in ("The soup was great. It made me happy.", "Grüße, 你好 🙂", "  two  blanks\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_sentences_of_its_own_are_short(built: Path) -> None:
    tokenizer, dice = AutoTokenizer.from_pretrained(str(built)), random.Random(1)
    lengths = [len(tokenizer(tiny.dialogue(dice)[1])["input_ids"]) + 1 for _ in range(300)]
    assert max(lengths) <= 24


def test_a_conversation_goes_on_behind_an_answer(built: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(built))
    turns = [
        {"role": "user", "content": "How was the soup?"},
        {"role": "assistant", "content": "Great."},
        {"role": "user", "content": "How nice!"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>How was the soup?<|assistant|>Great.<|end|>How nice!<|assistant|>"


def test_the_same_seed_makes_the_same_model(built: Path, tmp_path: Path) -> None:
    again = tiny.build(tmp_path / "again", steps=2)
    other = tiny.build(tmp_path / "other", steps=2, seed=1)
    first = sha256_file(built / "model.safetensors")
    assert sha256_file(again / "model.safetensors") == first
    assert sha256_file(other / "model.safetensors") != first
