"""What of an answer a reward model's head reads: how deep in the network, and at which tokens.

The last token of an answer is where a language model thinks of the next word, and its last layers
are made for that word. What an answer is like is told better by the mean over its tokens, half-way
up (docs/log.md). Both are had without a model of our own: layers are left away, and the last one
left is set so that its attention is a mean.

Choices
- Depths are compared as heads are: each is asked for the order of pairs that its head did not see,
  with the penalty that suits it best (headstart.py). A fresh head needs nothing else; the depth
  costs a pass over a few hundred rankings for each candidate.
- Shallow models keep all layers: there is nothing to choose between. So do encoders, which are read
  through a head of their own.
Not here: the head itself (headstart.py); the choice and the training (stages/reward.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from trainer.modeling import layers_of
from trainer.types import DEEP

#: rankings that tell how deep to read
SAMPLE = 256
#: how much louder than before the attention of a layer that reads evenly speaks: states of a
#: hundred vanish beside it, and a power of two rounds nothing
LOUD = 1024.0
#: how a layer's own maps to queries, and from what it heard to its output, are called
QUERIES, OUTPUTS = ("q_proj",), ("o_proj", "out_proj", "self_attn.dense")


@torch.no_grad()
def read_evenly(model: PreTrainedModel) -> bool:
    """Let the last layer attend to all tokens alike and drown what else comes out of it; False if
    it has no map of its own to queries, and stays as it is.

    Its queries become 0, so every key is met equally, and what it heard becomes `LOUD` times as
    loud as what the last token said before. So a score reads the mean of all tokens' values. What
    training makes of the layer then is its own affair; the model stays a plain one.
    """
    owner, name = layers_of(model)
    last = getattr(owner, name)[-1]
    queries, outputs = _maps(last, QUERIES), _maps(last, OUTPUTS)
    if len(queries) != 1 or len(outputs) != 1:
        return False
    for parameter in queries[0].parameters():
        parameter.zero_()
    for parameter in outputs[0].parameters():
        parameter.mul_(LOUD)
    return True


def _maps(layer: nn.Module, names: Sequence[str]) -> list[nn.Linear]:
    """The linear maps of a layer that are called so."""
    ends = tuple(f".{name}" for name in names)
    return [
        module
        for path, module in layer.named_modules()
        if f".{path}".endswith(ends) and isinstance(module, nn.Linear)
    ]


def depths(layers: int) -> list[int]:
    """Numbers of first layers that are worth trying, all of them last."""
    if layers < DEEP:
        return [layers]
    return [layers // 2 + 1, round(0.75 * layers), layers]
