"""Learned prompt vectors as words of a plain model, so that every stage and every program can use
them (Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning).

peft keeps the vectors apart and puts them in front of what is embedded. Here each becomes the
embedding of a new special token, and the chat template begins with these tokens: the model that
results computes the same and is an ordinary folder of transformers.

Choices
- The head knows only words, so the new ones need a row there. They get that of the word that is
  least likely where answers are learned: they are about as rare, and the others lose next to
  nothing of their probability. A head tied to the embedding gets weights of its own.
- A version that is tuned again begins with the newer vectors, as with peft.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from trainer.events import RunError
from trainer.modeling import chat_ids
from trainer.types import Message


def with_words(
    tokenizer: PreTrainedTokenizerBase, count: int
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """The tokenizer with so many new words, which its chat template begins with; their tokens."""
    new = copy.deepcopy(tokenizer)
    known = set(new.get_vocab())
    free = (f"<|learned_{n}|>" for n in range(1, len(known) + count + 1))
    words = [word for word in free if word not in known][:count]
    new.add_tokens([AddedToken(word, special=True) for word in words], special_tokens=True)
    # A template may be one of several, by name.
    start, template = "".join(words), new.chat_template
    new.chat_template = (
        {name: start + one for name, one in template.items()}
        if isinstance(template, dict)
        else start + (template or "")
    )
    return new, [int(token) for token in new.convert_tokens_to_ids(words)]


def check_words(
    tokenizer: PreTrainedTokenizerBase, count: int, messages: Sequence[Message]
) -> None:
    """Refuse a tokenizer that would split a prompt in another way behind the new words."""
    new, tokens = with_words(tokenizer, count)
    if chat_ids(new, messages) != [*tokens, *chat_ids(tokenizer, messages)]:
        raise RunError(
            "The base's tokenizer splits a text in another way behind words of its own, so learned "
            "vectors cannot stand before it; choose another config.method."
        )


@torch.no_grad()
def with_vectors(
    model: PreTrainedModel, tokens: Sequence[int], vectors: Tensor, rare: int
) -> PreTrainedModel:
    """A copy of the model in which `tokens` have the embeddings `vectors` (n, d) and, in the head,
    the row of the token `rare`.
    """
    config = copy.deepcopy(model.config)
    rows = model.get_input_embeddings().weight.shape[0]
    config.vocab_size = max(rows, *(token + 1 for token in tokens))
    config.tie_word_embeddings = False
    state = dict(model.state_dict())
    for part, given in ((model.get_input_embeddings(), vectors), (_head(model), None)):
        for name in ("weight", "bias"):
            old = getattr(part, name, None)
            if old is not None:
                wide = torch.cat([old, old.new_zeros(config.vocab_size - rows, *old.shape[1:])])
                wide[list(tokens)] = (old[rare] if given is None else given).to(old.dtype)
                state[_name(model, part, name)] = wide
    new: Any = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    new.load_state_dict(state)
    new.generation_config = copy.deepcopy(model.generation_config)
    new.eval().requires_grad_(False).to(model.device)
    return new


def _head(model: PreTrainedModel) -> nn.Module:
    head = model.get_output_embeddings()
    if head is None:
        raise RunError(
            f"{type(model).__name__} has no head of words, so vectors that are learned for it "
            "cannot become words; choose another config.method."
        )
    return head


def _name(model: PreTrainedModel, part: nn.Module, name: str) -> str:
    """What a parameter of that layer is called in the model's state."""
    (found,) = (path for path, module in model.named_modules() if module is part)
    return f"{found}.{name}"
