"""Toy models for tests: a random Llama of some thousand weights with a word tokenizer of its own.

They are made in a second, need no download, and go through the same doors as real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

# fmt: off
WORDS = [
    "good", "bad", "fine", "poor", "warm", "cold", "tea", "cat", "dog", "sun", "rain",
    "sea", "tree", "book", "song", "day", "night", "red", "blue", "I", "you", "we", "they",
    "like", "see", "hear", "want", "make", "the", "a", "my", "your", "is", "was", "not",
    "very", "and", "or", "in", "on", "how", "what",
]
# fmt: on
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
SPECIAL = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>", "<system>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words between blanks; pad 0 and end 1 differ."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
    )


def tiny_config(**changes: Any) -> LlamaConfig:
    """Two layers of width 32, two heads that share one key."""
    settings: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "initializer_range": 0.3,
    }
    return LlamaConfig(**(settings | changes))


def make_tiny(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A random policy in folder/policy."""
    torch.manual_seed(seed)
    path = folder / "policy"
    LlamaForCausalLM(tiny_config(**changes)).save_pretrained(str(path))
    tiny_tokenizer().save_pretrained(str(path))
    return path


def make_tiny_reward(folder: Path, likes: str = "good") -> Path:
    """A reward model in folder/reward that likes one word: the more of it, the higher the score.

    Attention is made uniform and carries only that word's direction to the last token, whose
    score reads that direction. The second layer and all feed-forward parts do nothing.
    """
    torch.manual_seed(1)
    path = folder / "reward"
    model = LlamaForSequenceClassification(tiny_config(num_labels=1))
    liked = [*SPECIAL, *WORDS].index(likes)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0.0
        model.model.embed_tokens.weight[liked] = 0.0
        model.model.embed_tokens.weight[liked, 0] = 1.0
        for layer in model.model.layers:
            for linear in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.zero_()
        first = model.model.layers[0].self_attn
        first.v_proj.weight.zero_()
        first.v_proj.weight[0, 0] = first.o_proj.weight[0, 0] = 1.0
        model.score.weight.zero_()
        model.score.weight[0, 0] = 1.0
    model.save_pretrained(str(path))
    tiny_tokenizer().save_pretrained(str(path))
    (path / "normalisation.json").write_text('{"mean": 0.0, "std": 1.0}')
    return path


def make_tiny_encoder(path: Path, *, scores: bool = False) -> Path:
    """A random BERT whose tokenizer knows a separator and no end of text; as a base, or with one
    score as its output.
    """
    torch.manual_seed(0)
    inner = tiny_tokenizer().backend_tokenizer
    start, end = inner.token_to_id("<user>"), inner.token_to_id("<end>")
    inner.post_processor = TemplateProcessing(
        single="<user> $A <end>", special_tokens=[("<user>", start), ("<end>", end)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", cls_token="<user>", sep_token="<end>"
    )
    config = BertConfig(
        vocab_size=tiny_config().vocab_size, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=96, pad_token_id=0,
        initializer_range=0.3, num_labels=1,
    )  # fmt: skip
    kind = BertForSequenceClassification if scores else BertForMaskedLM
    kind(config).save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))
    return path


def write_prompts(path: Path, count: int = 8) -> Path:
    """Prompts of different lengths."""
    lines = []
    for n in range(count):
        text = " ".join(WORDS[(3 * n + i) % len(WORDS)] for i in range(2 + n % 5))
        prompt = [{"role": "user", "content": text}]
        lines.append(json.dumps({"id": f"p{n}", "prompt": prompt}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
