"""Models made quick for inference: adapters merged and weights packed, for as long as it lasts.

Every twin of a block is tried on a few tokens against the model's own before it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer import blocks
from trainer.adapters import merged_weight
from trainer.kernels import PackedLinear, can_pack
from trainer.modeling import first_of_each_kind, probe, same, trunk


@contextlib.contextmanager
def packed(
    model: PreTrainedModel, rows: int = 64, *, norms: bool = True
) -> Iterator[PreTrainedModel]:
    """The model for inference only: adapters merged, weights packed; as before when the context
    ends.

    Where packing is not possible (GPU, other number formats) plain merged layers take its place.
    `rows` is the usual number of rows in a product. `norms` compiles the norms, too: for writing;
    with the many rows of reading the products take so long that it would not count.
    """
    swapped: list[tuple[nn.Module, str, nn.Module]] = []

    def swap(owner: nn.Module, name: str, twin: nn.Module | None) -> None:
        if twin is not None:
            swapped.append((owner, name, getattr(owner, name)))
            setattr(owner, name, twin)

    try:
        with torch.no_grad():
            found = blocks.find(model, norms)
            kinds = lean_kinds(model, found, rows)
            for owner, name, block in found:
                if type(block) in kinds:
                    swap(owner, name, blocks.twin(block, lambda layers: _pack(layers, rows)))
            for owner in list(model.modules()):
                if not isinstance(owner, LoraLinear):
                    for name, layer in list(owner.named_children()):
                        swap(owner, name, _inference_twin(layer, rows))
            yield model
    finally:
        for owner, name, layer in reversed(swapped):
            setattr(owner, name, layer)


#: which kinds of a model's blocks have a leaner twin, as far as tried, as long as the model lives
_kinds: WeakKeyDictionary[nn.Module, dict[type, bool]] = WeakKeyDictionary()


def lean_kinds(model: PreTrainedModel, found: list[blocks.Found], rows: int) -> frozenset[type]:
    """The kinds of the model's blocks that have a leaner twin; tried on a few tokens, once."""
    known = _kinds.setdefault(model, {})
    untried = [one for one in found if type(one.block) not in known]
    if untried:

        def run() -> None:
            with first_of_each_kind(model):
                trunk(model)(input_ids=ids, attention_mask=mask)

        ids, mask = probe(model)
        right = blocks.alike(untried, lambda layers: _pack(layers, rows), run, same)
        known |= {type(one.block): type(one.block) in right for one in untried}
    return frozenset(kind for kind, right in known.items() if right)


def _pack(layers: Sequence[nn.Module], rows: int) -> PackedLinear | None:
    """One packed layer of the linear layers, one below the other; None where that cannot be."""
    parts = [part for part in map(_merged, layers) if part is not None]
    if len(parts) < len(layers) or not all(can_pack(weight) for weight, _ in parts):
        return None
    weights = [weight for weight, _ in parts]
    own = [bias for _, bias in parts if bias is not None]
    if len(own) not in (0, len(parts)):
        return None
    one = len(parts) == 1
    weight = weights[0] if one else torch.cat(weights)
    bias = None if not own else own[0] if one else torch.cat(own)
    packed_layer = PackedLinear(weight, bias, rows)
    packed_layer.weight = weight.new_empty(0)  # no one asks for it within a block
    return packed_layer


def _merged(layer: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a linear layer with its adapter; None for other layers."""
    if isinstance(layer, LoraLinear) and type(layer.base_layer) is nn.Linear:
        weight: Tensor = merged_weight(layer).data
        bias: Tensor | None = layer.base_layer.bias
    elif type(layer) is nn.Linear:
        weight, bias = layer.weight.data, layer.bias
    else:
        return None
    return weight, None if bias is None else bias.detach()


def _inference_twin(layer: nn.Module, rows: int) -> nn.Module | None:
    """What stands in for a layer during inference; None leaves it."""
    found = _merged(layer)
    if found is None:
        return None
    weight, bias = found
    if can_pack(weight):
        return PackedLinear(weight, bias, rows)
    if not isinstance(layer, LoraLinear):
        return None
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        plain.bias = nn.Parameter(bias, requires_grad=False)
    return plain
