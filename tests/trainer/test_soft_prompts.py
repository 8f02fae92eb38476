"""Vectors as words: the model that gets them, and tokenizers that cannot have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.tiny import tiny_tokenizer
from trainer import soft_prompts
from trainer.events import RunError

TURN = ({"role": "user", "content": "tea"},)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_tied_to_the_embedding_gets_weights_of_its_own(
    tied: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    vectors = torch.randn(2, 8)
    soft_prompts.with_vectors(model, [11, 12], vectors, rare=7).save_pretrained(tmp_path / "new")
    new = AutoModelForCausalLM.from_pretrained(str(tmp_path / "new"))

    text = torch.tensor([[3, 4, 5]])
    embedded = torch.cat([vectors, model.get_input_embeddings()(text[0])])[None]
    with torch.no_grad():
        wanted = model(inputs_embeds=embedded).logits[0, 2:]
        found = new(torch.cat([torch.tensor([[11, 12]]), text], dim=1)).logits[0, 2:]
    torch.testing.assert_close(found[:, :11], wanted)
    torch.testing.assert_close(found[:, 11:], wanted[:, [7, 7]])
    assert model.config.vocab_size == 11  # the old one stays as it was


def test_words_take_free_places_of_a_padded_vocabulary() -> None:
    """An embedding may have more rows than the tokenizer has words."""
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0,
    )  # fmt: skip
    new = soft_prompts.with_vectors(LlamaForCausalLM(config), [11, 12], torch.ones(2, 8), rare=0)
    assert new.get_input_embeddings().weight.shape == (16, 8)
    assert new.get_input_embeddings().weight[[11, 12]].tolist() == [[1.0] * 8] * 2


def test_every_template_of_several_begins_with_the_words() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tools": "no tools"}
    new, tokens = soft_prompts.with_words(tokenizer, 2)
    assert new.convert_ids_to_tokens(tokens) == ["<|learned_1|>", "<|learned_2|>"]
    begins = "<|learned_1|><|learned_2|>"
    assert all(one.startswith(begins) for one in new.chat_template.values())
    assert "<|learned_1|>" not in tokenizer.get_vocab()


def test_a_tokenizer_that_would_split_the_text_otherwise_is_refused() -> None:
    """One that marks the beginning of a text does not see it behind a word of its own."""
    soft_prompts.check_words(tiny_tokenizer(), 2, TURN)
    words = Tokenizer(WordLevel({"▁tea": 0, "tea": 1, "<end>": 2}, unk_token="<end>"))
    words.pre_tokenizer = Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(RunError, match=r"choose another config\.method"):
        soft_prompts.check_words(tokenizer, 2, TURN)
