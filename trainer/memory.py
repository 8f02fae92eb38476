"""How much memory a run will need, said before any weights are read. Needs no torch.

`estimate` adds up, from a model folder's config.json and safetensors headers and from the stage's
settings, what a run holds the whole time and what each of its phases holds besides; the need is the
fixed part and the largest phase. `check` compares it with what is free and refuses a run that would
not fit, naming the settings that would help.

Choices
- Torch-free, so that it can be asked anywhere. Counts are those of a transformer's blocks: six
  states of the model's width, four of the feed-forward width and the attention's probabilities are
  kept for each token and layer that learns (kernels.py says which).
- Lengths come from the files: a token is taken to be three bytes of text.
- Free is what the kernel calls available, less where a control group (a container) allows less.
- An estimate, not a promise: `benchmarks/memory.py` compares it with what runs really take, and
  LABELHUB_MEMORY_CHECK=0 runs what would be refused.
Non-goals: the time that a run takes, disk space.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from trainer import ranks
from trainer.config import Spec, StageConfig, resolve_path
from trainer.events import MemoryShort, RunError
from trainer.types import HEAD_ROWS, SHAPES, TILE, adapted_depth

#: switch of the check
SWITCH = "LABELHUB_MEMORY_CHECK"
MIB, GIB = 2**20, 2**30
#: interpreter and libraries without any model: the trainer's own stages, those that load TRL
PROCESS, PROCESS_TRL = 430 * MIB, 590 * MIB
#: numba and what it compiled (decoding.py), where answers are written on a CPU
COMPILED = 100 * MIB
#: what oneDNN keeps for products in bfloat16: about .75 MiB for each of the last 256 shapes
#: (`__main__.set_environment`), and texts of all lengths come to as many
PREPARED = 192 * MIB
#: the same on a GPU: the CUDA context
PROCESS_CUDA = 600 * MIB
#: what allocators hold beyond what was asked for
SLACK = 1.1
#: bytes of text that make a token
TOKEN_BYTES = 3
BYTES = {"float32": 4, "bfloat16": 2}
#: what there is of an embedding that the head shares where accelerate splits it: the weight, what
#: it was gathered into, the gradients of both its uses, their sum, and that sum as it is sent
COPIES = 6
#: a float32 weight's gradient and its two moments (Adam), in bytes; with the weight itself 16
LEARNED = 12


class Network(NamedTuple):
    """A model's sizes, as its folder tells them."""

    parameters: int
    width: int
    inner: int  # of the feed-forward part
    layers: int
    heads: int
    key_width: int  # of all key heads together
    vocabulary: int
    window: int  # tokens in its longest context
    lean: bool  # whether its attention is of the kind that keeps a prompt once for its answers
    #: layer (-1: none), outputs, inputs of each matrix besides the embedding
    matrices: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Part:
    """Something that takes memory; without a phase it is held the whole time."""

    name: str
    bytes: int
    phase: str = ""


@dataclass(frozen=True)
class Estimate:
    """What a run needs, part by part."""

    parts: tuple[Part, ...]

    def phases(self) -> dict[str, int]:
        """Bytes that each phase adds to the fixed part."""
        found: dict[str, int] = {}
        for part in self.parts:
            if part.phase:
                found[part.phase] = found.get(part.phase, 0) + part.bytes
        return found

    @property
    def bytes(self) -> int:
        """The fixed part and the largest phase, with what allocators waste."""
        fixed = sum(part.bytes for part in self.parts if not part.phase)
        return round(SLACK * (fixed + max(self.phases().values(), default=0)))

    @property
    def mib(self) -> int:
        return math.ceil(self.bytes / MIB)


# --- models -------------------------------------------------------------------------------------


def read_network(folder: Path) -> Network:
    """The sizes of a transformers folder; refuses one that does not say them."""
    path = folder / "config.json"
    try:
        body = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} is no model folder (it has no config.json).") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it.") from None
    body = body.get("text_config") or body
    tensors = list(tensor_shapes(folder))

    def number(*names: str, default: int = 0) -> int:
        return next((int(body[name]) for name in names if body.get(name)), default)

    width = number("hidden_size", "n_embd", "d_model", "dim")
    heads = number("num_attention_heads", "n_head", "n_heads", default=1)
    head = number("head_dim", default=width // heads)
    return Network(
        parameters=sum(math.prod(shape) for _, shape in tensors),
        width=width,
        inner=number("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", default=4 * width),
        layers=number("num_hidden_layers", "n_layer", "n_layers", default=1),
        heads=heads,
        key_width=head * number("num_key_value_heads", default=heads),
        vocabulary=number("vocab_size"),
        window=number("max_position_embeddings", "n_positions", default=2**31),
        lean=not body.get("sliding_window") and _projects_apart(tensors),
        matrices=tuple(_matrices(tensors)),
    )


def tensor_shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor in a folder's safetensors files, from their headers alone."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    yield name, file.get_slice(name).get_shape()
        except SafetensorError as error:
            raise RunError(f"{path} is damaged ({error}); restore it.") from None


def _matrices(tensors: list[tuple[str, list[int]]]) -> Iterator[tuple[int, int, int]]:
    """Matrices of the layers (a number in their name) and of the head; embeddings are none."""
    for name, shape in tensors:
        layer = re.search(r"\.(\d+)\.", name)
        if len(shape) == 2 and (layer or "embed" not in name):
            yield (int(layer[1]) if layer else -1, shape[0], shape[1])


def _projects_apart(tensors: list[tuple[str, list[int]]]) -> bool:
    """Whether there are as many projections for queries, keys, values and output (blocks.py)."""
    counts = {sum(name.endswith(f".{part}_proj.weight") for name, _ in tensors) for part in "qkvo"}
    return len(counts) == 1 and counts != {0}


def planned_network(config: Any) -> Network:
    """The network that a pretrain run will make."""
    shape = SHAPES[config.size]
    inner, three = shape.inner, 3
    if config.objective == "masked":
        inner, three = inner * 3 // 2, 2
    one = [(shape.width, shape.width)] * 4 + [(inner, shape.width)] * three
    return Network(
        parameters=shape.parameters + config.vocabulary * shape.width,
        width=shape.width,
        inner=inner,
        layers=shape.layers,
        heads=shape.heads,
        key_width=shape.width,
        vocabulary=config.vocabulary,
        window=config.max_length,
        lean=config.objective == "causal",
        matrices=tuple((layer, *size) for layer in range(shape.layers) for size in one),
    )


def main_model(spec: Spec, folder: Path) -> Path | int:
    """The model whose size decides the number format: a folder, or parameters of a planned one."""
    if spec.stage == "pretrain":
        return planned_network(spec.config).parameters
    role = next(name for name in ("policy", "base", "reward") if name in spec.inputs)
    return resolve_path(spec.inputs[role], folder)


# --- what takes memory --------------------------------------------------------------------------


@dataclass
class Plan:
    """A run as the estimate sees it."""

    spec: Spec
    folder: Path
    dtype: str  # of frozen weights
    device: str  # cpu or cuda
    parts: list[Part] = field(default_factory=list)

    @cached_property
    def config(self) -> Any:
        return self.spec.config

    @property
    def size(self) -> int:
        """Bytes of a number of frozen weights and of states."""
        return BYTES[self.dtype]

    def add(self, name: str, count: float, phase: str = "") -> None:
        """Note a part of that many bytes."""
        self.parts.append(Part(name, math.ceil(count), phase))

    def network(self, name: str) -> Network:
        """The model of an input."""
        return read_network(resolve_path(self.spec.inputs[name], self.folder))

    def longest(self, *names: str, most: int) -> int:
        """Tokens of the longest line of these inputs, at most `most`."""
        found = 1
        for name in names:
            if name in self.spec.inputs:
                with resolve_path(self.spec.inputs[name], self.folder).open("rb") as lines:
                    found = max(found, max(map(len, lines), default=1))
        return min(-(-found // TOKEN_BYTES), most)

    # parts that several stages have

    def process(self, trl: bool = False) -> None:
        """Interpreter and libraries."""
        if self.device == "cuda":
            self.add("CUDA", PROCESS_CUDA)
        else:
            self.add("libraries", PROCESS_TRL if trl else PROCESS)

    def weights(self, name: str, net: Network, size: int = 0, phase: str = "") -> None:
        """One copy of a model's weights."""
        self.add(name, net.parameters * (size or self.size), phase)

    def packed(self, net: Network, phase: str, adapted: int = 0) -> None:
        """Weights in the CPU library's layout beside the plain ones, and what adapters merge to."""
        if self.device != "cpu":
            return
        count = sum(out * into for _, out, into in net.matrices)
        tied = not any(layer < 0 for layer, _, _ in net.matrices)
        head = net.vocabulary * net.width if tied else 0
        merged = sum(
            out * into for layer, out, into in net.matrices if layer >= net.layers - adapted
        )
        self.add("packed weights", (count + head + (merged if adapted else 0)) * self.size, phase)

    def prepared(self, phase: str) -> None:
        """What the CPU library keeps of products that it made ready while a model learned."""
        if self.device == "cpu" and self.dtype == "bfloat16":
            self.add("prepared products", PREPARED, phase)

    def adapter(self, net: Network, r: int, layers: int) -> None:
        """A float32 low-rank adapter on the top layers, with gradient and moments."""
        count = sum(r * (a + b) for layer, a, b in net.matrices if layer >= net.layers - layers)
        self.add("adapter, its gradient and moments", count * (4 + LEARNED))

    def learned(self, net: Network, share: float = 1.0) -> None:
        """Gradient and moments of weights that are float32 themselves."""
        self.add("gradient and moments", net.parameters * share * LEARNED)

    def every_weight(
        self, name: str, net: Network, size: int, after: str, *, stays: int = 0
    ) -> None:
        """Weights that all learn, their gradient and moments.

        Where they are split over processes (sharding.py), whole weights are there before training
        and in the phase `after` it; `stays` of them are never split.
        """
        if not ranks.splits():
            self.weights(name, net, size)
            self.learned(net)
            return
        own = stays + (net.parameters - stays) / ranks.world()
        self.add(f"{name}, whole, beside its part", (net.parameters + own) * size, after)
        self.part(name, net, size, stays=stays, copies=3, phase="training")

    def part(
        self,
        name: str,
        net: Network,
        size: int,
        *,
        stays: int = 0,
        share: float = 1.0,
        copies: int = COPIES,
        phase: str = "",
    ) -> None:
        """This process's part of split weights, of which that share learns, with its gradient and
        moments, and what is gathered while it computes: so many copies of the largest piece.
        `stays` weights are never split.
        """
        own = stays + (net.parameters - stays) / ranks.world()
        count = own * (size + share * LEARNED)
        self.add(f"part of the {name}, gradient, moments", count, phase)
        largest = max(net.parameters / net.layers, net.vocabulary * net.width - stays)
        self.add("what is whole at once, with its gradient", copies * largest * size, "training")

    def states(
        self, net: Network, tokens: int, row: int, phase: str, *, layers: int, size: int = 0
    ) -> None:
        """What a pass over `tokens` in rows of `row` keeps for its gradient in that many layers;
        one layer's worth is there without any gradient.
        """
        one = 6 * net.width + 2 * net.key_width + 4 * net.inner + net.heads * min(row, tokens)
        self.add("states", tokens * one * (size or self.size) * max(layers, 1), phase)
        # norms and rotations are computed in float32
        self.add("states in float32", tokens * (4 * net.width + net.inner) * 4, phase)

    def head(self, net: Network, rows: int, phase: str) -> None:
        """Logits over the vocabulary, in the weights' format and in float32."""
        self.add("logits", rows * net.vocabulary * (self.size + 8), phase)

    def writing(self, net: Network, rows: int, many: int, prompt: int) -> None:
        """Key-value cache and logits of answers that are written side by side, so many to each
        prompt, which is read once and, where the cache can do so (cache.py), kept once.
        """
        new, phase = self.config.max_new_tokens, "writing"
        prompts = -(-rows // many)
        shared = net.lean and self.device == "cpu" and many > 1
        tokens = (prompts if shared else rows) * prompt + rows * new
        self.add("key-value cache", tokens * net.layers * 2 * net.key_width * self.size, phase)
        self.add("one layer of it copied", tokens * 2 * net.key_width * self.size, phase)
        self.add("logits", rows * net.vocabulary * (self.size + 12), phase)
        self.states(net, prompts * prompt, prompt, phase, layers=0)
        if self.device == "cpu":
            self.add("numba and what it compiled", COMPILED)


def lora_layers(net: Network, config: Any) -> int:
    """Layers that an adapter of PPO sits on."""
    return net.layers - adapted_depth(net.layers, config.lora_layers)


def first_layers(net: Network, count: int) -> Network:
    """The network without the layers behind its first ones."""
    gone = sum(out * into for layer, out, into in net.matrices if layer >= count)
    kept = tuple(one for one in net.matrices if one[0] < count)
    return net._replace(
        parameters=net.parameters - gone, layers=min(count, net.layers), matrices=kept
    )


# --- stages -------------------------------------------------------------------------------------


def plan_generate(plan: Plan) -> None:
    config, net = plan.config, plan.network("policy")
    plan.process()
    plan.weights("policy", net)
    prompt = plan.longest("prompts", most=net.window)
    plan.packed(net, "writing")
    plan.writing(net, config.batch_size, config.answers, prompt)


def plan_reward(plan: Plan) -> None:
    config, net = plan.config, plan.network("base")
    net = first_layers(net, config.layers or net.layers)
    plan.process()
    size = plan.size if config.lora or config.dtype != "auto" else 4
    row = plan.longest("rankings", most=min(config.max_length, net.window))
    tokens = max(config.token_budget, row)
    layers = net.layers
    if config.lora:
        plan.weights("base", net, size)
        layers = min(config.lora_layers or net.layers, net.layers)
        adapters = config.ensemble if config.ensemble_kind == "lora" else 1
        for _ in range(adapters):
            plan.adapter(net, config.lora_r, layers)
        if layers < net.layers:  # what the layers below give is kept for all epochs
            read = resolve_path(plan.spec.inputs["rankings"], plan.folder).stat().st_size
            below = read / TOKEN_BYTES * net.width * size
            plan.add("states below the adapter", min(below, config.lower_mib * MIB))
    else:
        plan.every_weight("base", net, size, "scoring")
    plan.states(net, tokens, row, "training", layers=layers, size=size)
    plan.prepared("training")
    plan.packed(net, "scoring")
    plan.states(net, tokens, row, "scoring", layers=0)


def plan_ppo(plan: Plan) -> None:
    config, net, judge = plan.config, plan.network("policy"), plan.network("reward")
    plan.process()
    size = plan.size if config.lora or config.dtype != "auto" else 4
    plan.weights("policy", net, size)
    plan.weights("reward model", judge)
    if "second" in plan.spec.inputs:
        plan.weights("second reward model", plan.network("second"))
    layers = lora_layers(net, config) if config.lora else net.layers
    if config.lora:
        plan.adapter(net, config.lora_r, layers)
    else:
        plan.weights("reference", net, size)
        plan.learned(net)
        # weights and moments at the start of a step, and the last weights within the KL budget
        plan.add("what a stopped step goes back to", 4 * 4 * net.parameters)
    if config.critic == "adapter":
        plan.adapter(judge, config.lora_r, lora_layers(judge, config))
        plan.states(
            judge,
            config.token_budget,
            config.token_budget,
            "learning",
            layers=lora_layers(judge, config),
        )
    prompt = plan.longest("prompts", "heldout", most=net.window)
    row = prompt + config.answers_per_prompt * config.max_new_tokens
    tokens = max(config.token_budget, row)
    rows = min(config.batch_size, config.episodes_per_step + config.samples)
    plan.packed(net, "writing", adapted=layers if config.lora else 0)
    plan.writing(net, rows, config.answers_per_prompt, prompt)
    shared = 1 + prompt / config.answers_per_prompt / config.max_new_tokens
    step = config.episodes_per_step * config.max_new_tokens
    plan.add("states below the adapter", step * shared * net.width * plan.size, "learning")
    plan.add("states that the critic reads", step * judge.width * (plan.size + 4), "learning")
    plan.states(net, tokens, row, "learning", layers=layers, size=size)
    plan.head(net, HEAD_ROWS, "learning")
    plan.prepared("learning")


def plan_sft(plan: Plan) -> None:
    config, net = plan.config, plan.network("base")
    plan.process(trl=True)
    size = plan.size if config.method == "lora" else 4
    layers = config.train_layers if config.method == "freeze" else net.layers
    share = min(1.0, layers / net.layers)
    if ranks.splits():
        plan.part("base", net, size, share=share)
        plan.weights("base, whole", net, size, "testing")
    else:
        plan.weights("base", net, size)
    if config.method == "lora":
        plan.adapter(net, config.lora_r, net.layers)
        plan.weights("merged model", net, phase="testing")
    elif config.method == "prompt":
        plan.weights("model with the learned words", net, 4, phase="testing")
    elif config.method in ("full", "freeze") and not ranks.splits():
        plan.learned(net, share)
    micro = min(config.micro_batch_size or config.batch_size, config.batch_size)
    row = plan.longest("pairs", most=min(config.max_length, net.window))
    tokens = micro * config.max_length if config.packing else _parted(plan, micro, row)
    _trainer_states(plan, net, tokens, row, layers)
    # TRL's head takes the vocabulary tile by tile; without Triton there are eight copies in float32
    if plan.device == "cpu":
        tile = min(net.vocabulary, TILE)
        plan.add("a tile of logits", tokens * tile * (plan.size + 32), "training")
    plan.head(net, HEAD_ROWS, "testing")


def plan_prefer(plan: Plan) -> None:
    config, net = plan.config, plan.network("policy")
    plan.process(trl=True)
    size = plan.size if config.lora else 4
    if config.lora:
        plan.weights("policy", net, size)
        plan.adapter(net, config.lora_r, net.layers)
    elif ranks.splits():
        plan.part("policy", net, size)
        plan.add("part of the reference", net.parameters * size / ranks.world())
    else:
        plan.weights("policy", net, size)
        plan.weights("reference", net, size)
        plan.learned(net)
    plan.weights("merged model and base", net, 2 * size, "testing")
    micro = min(config.micro_batch_size or config.batch_size, config.batch_size)
    most = min(config.max_length, net.window)
    if config.method == "dpo":
        row = plan.longest("rankings", most=most) // 2  # a line holds several answers
        _trainer_states(plan, net, 2 * micro * row, row, net.layers)
        return
    judge = plan.network("reward")
    plan.weights("reward model", judge)
    if ranks.splits():
        plan.weights("policy that writes", net, size)
    prompt = plan.longest("prompts", most=net.window)
    row = prompt + config.max_new_tokens
    _trainer_states(plan, net, micro * row, row, net.layers)
    plan.packed(net, "writing", adapted=net.layers if config.lora else 0)
    plan.writing(net, config.write_batch, config.answers, prompt)


def plan_bestofn(plan: Plan) -> None:
    config, net, judge = plan.config, plan.network("policy"), plan.network("reward")
    plan.process(trl=True)
    plan.weights("policy", net)
    plan.weights("reward model", judge)
    prompt = plan.longest("prompts", most=net.window)
    plan.packed(net, "writing")
    plan.writing(net, config.write_batch, config.answers, prompt)
    if ranks.splits():
        plan.part("policy that learns", net, 4)
        plan.weights("policy that learns, whole", net, 4, "testing")
    else:
        plan.weights("policy that learns", net, 0 if config.lora else 4, "training")
        if config.lora:
            plan.adapter(net, config.lora_r, net.layers)
        else:
            plan.learned(net)
    micro = min(config.micro_batch_size or config.batch_size, config.batch_size)
    row = prompt + config.max_new_tokens
    tokens = _parted(plan, micro, row)
    _trainer_states(plan, net, tokens, row, net.layers)
    # only what an answer's tokens are foretold from reaches the head, which needs a gradient
    plan.head(net, 2 * min(tokens, micro * config.max_new_tokens), "training")


def _parted(plan: Plan, rows: int, row: int) -> int:
    """Tokens of a pass over so many rows of at most that length (trl_loop.Parted)."""
    if plan.device != "cpu" or ranks.world() > 1:
        return rows * row
    return min(rows * row, max(plan.config.token_budget, row))


def _trainer_states(plan: Plan, net: Network, tokens: int, row: int, layers: int) -> None:
    """Training by transformers' Trainer, which may compute states anew instead of keeping them."""
    if plan.config.activation_checkpointing:
        plan.add("states between layers", tokens * net.width * plan.size * net.layers, "training")
        layers = 1
    plan.states(net, tokens, row, "training", layers=layers)
    plan.prepared("training")


def plan_pretrain(plan: Plan) -> None:
    config, net = plan.config, planned_network(plan.config)
    plan.process()
    embedding = net.vocabulary * net.width
    plan.every_weight("network", net, 4, "testing", stays=embedding)
    rows = min(config.micro_batch_size or config.batch_size, config.batch_size)
    tokens = rows * config.max_length
    plan.states(net, tokens, config.max_length, "training", layers=net.layers)
    plan.add("logits", tokens * net.vocabulary * (plan.size + 8), "training")
    text = resolve_path(plan.spec.inputs["text"], plan.folder)
    files = [text] if text.is_file() else [file for file in text.rglob("*") if file.is_file()]
    # the text itself, its copies on the way and its tokens as numbers of eight bytes
    plan.add("text and its tokens", 6 * sum(file.stat().st_size for file in files))


def plan_evaluate(plan: Plan) -> None:
    config = plan.config
    plan.process()
    if "policy" in plan.spec.inputs:
        net = plan.network("policy")
        prompt = plan.longest("prompts", most=net.window)
        plan.weights("policy", net, phase="writing")
        plan.packed(net, "writing")
        plan.writing(net, config.batch_size, config.answers, prompt)
    for name in ("reward", "second"):  # one after the other
        if name in plan.spec.inputs:
            _judging(plan, name)


def plan_score(plan: Plan) -> None:
    plan.process()
    _judging(plan, "reward")


def _judging(plan: Plan, name: str) -> None:
    """A reward model reads answers, each in a row of its own."""
    net, phase = plan.network(name), f"scoring ({name})"
    most = min(plan.config.max_length, net.window)
    row = plan.longest("rankings", "answers", "prompts", most=most)
    plan.weights("reward model", net, phase=phase)
    plan.packed(net, phase)
    plan.states(net, max(plan.config.token_budget, row), row, phase, layers=0)


STAGES: Mapping[str, Callable[[Plan], None]] = {
    "pretrain": plan_pretrain,
    "sft": plan_sft,
    "generate": plan_generate,
    "reward": plan_reward,
    "ppo": plan_ppo,
    "prefer": plan_prefer,
    "bestofn": plan_bestofn,
    "evaluate": plan_evaluate,
    "score": plan_score,
}


def estimate(spec: Spec, folder: Path, dtype: str, device: str) -> Estimate:
    """What the run needs on that kind of device with frozen weights of that format."""
    plan = Plan(spec, folder, dtype, device)
    STAGES[spec.stage](plan)
    return Estimate(tuple(plan.parts))


# --- what is free -------------------------------------------------------------------------------


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may have in all, what it holds already included; None: not known."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        table = dict(line.split(":", 1) for line in lines)
        free = int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    allowed = [free, *_group_rooms(proc, groups)]
    return max(0, min(allowed)) + _resident(proc)


def _resident(proc: Path) -> int:
    """Bytes that this process holds in memory of its own."""
    try:
        text = (proc / "self" / "status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _group_rooms(proc: Path, groups: Path) -> Iterator[int]:
    """Bytes that each control group above this process still allows (version 2, then 1)."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = line.split(":", 2)
        if number == "0":
            names = ("memory.max", "memory.current", "inactive_file")
            root = groups
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = groups / "memory"
        else:
            continue
        here = root / path.lstrip("/")
        for place in (here, *here.parents):
            if place.is_relative_to(root):
                room = _room(place, *names)
                if room is not None:
                    yield room


def _room(place: Path, limit: str, used: str, cache: str) -> int | None:
    """A group's limit minus what it uses; file cache that can be dropped is not counted."""
    try:
        most = (place / limit).read_text().strip()
        now = int((place / used).read_text())
        kept = re.search(rf"^{cache} (\d+)", (place / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    if not most.isdigit() or int(most) > 2**60:  # "max", or version 1's way to say so
        return None
    return int(most) - now + (int(kept[1]) if kept else 0)


# --- refusing -----------------------------------------------------------------------------------


def check(spec: Spec, folder: Path, dtype: str, device: str, free: int | None) -> int:
    """The need in MiB; refuses a run that needs more than the `free` bytes, unless switched off."""
    found = estimate(spec, folder, dtype, device)
    if free is not None and found.bytes > free and os.environ.get(SWITCH, "1") != "0":
        remedy = advice(spec, folder, dtype, device, free)
        raise MemoryShort(
            f"This run needs about {gib(found.bytes)} of memory and {gib(free)} are free: "
            f"{remedy}. ({SWITCH}=0 runs it all the same.)"
        )
    return found.mib


def gib(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def advice(spec: Spec, folder: Path, dtype: str, device: str, free: int) -> str:
    """Settings that would make it fit: one of them alone, or as few together as do."""

    def need(change: Mapping[str, Any]) -> int:
        config = dataclasses.replace(spec.config, **change)
        small = dataclasses.replace(spec, config=config)
        return estimate(small, folder, change.get("dtype", dtype), device).bytes

    whole = need({})
    found = sorted((need(change), number) for number, change in enumerate(remedies(spec.config)))
    changes = [(size, remedies(spec.config)[number]) for size, number in found if size < whole]
    fitting = [f"{told(change)} ({gib(size)})" for size, change in changes if size <= free]
    if fitting:
        return "set " + " or ".join(fitting[:3])
    together: dict[str, Any] = {}
    for _, change in changes:
        together |= change
        if need(together) <= free:
            return f"set {told(together)} ({gib(need(together))})"
    return "use a smaller model or a machine with more memory"


def told(change: Mapping[str, Any]) -> str:
    """A change of settings in words."""
    return " and ".join(f"config.{name} to {json.dumps(value)}" for name, value in change.items())


def remedies(config: StageConfig) -> list[dict[str, Any]]:
    """Changes of a stage's settings that save memory."""
    given: Any = config
    settings = {item.name for item in dataclasses.fields(config)}
    found: list[dict[str, Any]] = []
    if getattr(given, "lora", True) is False:
        found.append({"lora": True})
    if getattr(given, "method", "") == "full":
        found.append({"method": "lora"})
    if given.dtype == "float32":
        found.append({"dtype": "bfloat16"})
    if getattr(given, "activation_checkpointing", True) is False:
        found.append({"activation_checkpointing": True})
    if "micro_batch_size" in settings and given.micro_batch_size != 1:
        found.append({"micro_batch_size": 1})
    for name, least in (
        ("token_budget", 256),
        ("write_batch", 8),
        ("max_length", 512),
        ("max_new_tokens", 256),
    ):
        if name in settings and getattr(given, name) > least:
            found.append({name: least})
    if config.stage in ("generate", "ppo", "evaluate") and given.batch_size > 8:
        found.append({"batch_size": 8})
    return found


def as_table(found: Estimate, free: int | None) -> str:
    """The parts as lines for a terminal."""
    phases = found.phases()
    largest = max(phases, key=lambda name: phases[name], default="none")
    lines = [f"{'part':<36}{'phase':<18}{'MiB':>9}"]
    lines += [f"{p.name:<36}{p.phase:<18}{p.bytes / MIB:>9.0f}" for p in found.parts]
    lines.append(f"{f'needs, the largest phase being {largest}':<54}{found.mib:>9}")
    if free is not None:
        lines.append(f"{'free':<54}{free // MIB:>9}")
    return "\n".join(lines)
