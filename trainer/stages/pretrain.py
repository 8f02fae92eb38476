"""Make a language model from nothing but text.

Reads `text` (and maybe `tokenizer`); writes out/: the model as transformers loads it, its
tokenizer, report.json with the perplexity of held-out documents, duplicates.json.

Choices
- The text is prepared step by step (corpus.py): cleaned, copies dropped, some documents held out,
  a tokenizer made of the rest.
- Rows are full: documents stand one behind the other, and where one does not fit it goes on in the
  next row. Each token is learned once an epoch. Documents of a row do not see one another, unless
  asked for; positions begin anew with each.
- objective causal: a Llama-shaped decoder; an end-of-text stands before a document as well as
  behind it, so that its first token is learned, too.
- objective masked: a BERT-shaped encoder; of the hidden 15 % of the tokens 80 % become the mask,
  10 % any token, and 10 % stay (Devlin et al. 2019).
- Held-out documents are read each on its own. Perplexity counts every token and the end; intervals
  count documents, since tokens of one document are not independent.
- AdamW (Loshchilov & Hutter 2019; β 0.9 and 0.95), cosine to a tenth of the peak rate. Weights are
  float32; products are bfloat16 where the machine is fast at it.
- Nothing is random but what follows from the seed, the epoch and the step, and there is no dropout:
  a resumed run is bit for bit the undisturbed one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from trainer import distributed
from trainer.cards import Card, with_interval, write_card
from trainer.checkpoints import Checkpoint, load_optimizer, optimizer_state, publish, record, resume
from trainer.config import PretrainConfig
from trainer.corpus import (
    Copies,
    Document,
    clean,
    drop_exact,
    drop_near,
    hold_out,
    make_tokenizer,
    read_texts,
    wrap_tokenizer,
)
from trainer.data import length_buckets
from trainer.events import RunError, Stopped, no_number
from trainer.modeling import load_tokenizer, trunk
from trainer.placement import Placement, start
from trainer.rollout import answer_seed, generate
from trainer.statistics import Estimate, clustered_ratio, perplexity
from trainer.types import IGNORED, SHAPES, RunContext, Sampling

#: held-out documents that are looked at while it trains
LOOKS = 64
#: tokens of a document that a sample goes on from, and how freely it does
OPENING, TEMPERATURE = 12, 0.8
#: share of the run's time until the text is ready, until training ends
PREPARED, TRAINED = 0.05, 0.95
#: documents whose tokens are found at once
ENCODED = 1000

Ids = NDArray[np.int64]


class Rows(NamedTuple):
    """Rows of tokens, all (b, t)."""

    ids: Tensor
    targets: Tensor  # the token to be foretold at this place, or IGNORED
    segments: Tensor  # which document the token belongs to; -1 on padding
    positions: Tensor  # its place in the document, or in the part of it that this row holds

    def part(self, begin: int, end: int) -> Rows:
        """Some of the rows."""
        return Rows(*(tensor[begin:end] for tensor in self))


class Corpus(NamedTuple):
    """The text as it is trained and tested on."""

    training: list[Document]
    heldout: list[Document]
    figures: dict[str, Any]
    copies: dict[str, Copies]  # exact, near

    def digest(self) -> str:
        """sha256 of the training text, to know whether it is still the same."""
        found = hashlib.sha256()
        for one in self.training:
            found.update(hashlib.sha256(one.text.encode("utf-8")).digest())
        return found.hexdigest()


class Texts(NamedTuple):
    """Documents as tokens."""

    tokens: list[Ids]
    size: Ids  # bytes of each document


@dataclass
class Fit:
    """A model in the making."""

    model: Any
    tokenizer: Any
    config: PretrainConfig
    seed: int
    placement: Placement
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    training: Texts
    heldout: Texts
    step: int = 0
    seen: int = 0  # tokens learned from so far
    packed: tuple[int, Rows] | None = None  # an epoch and its rows

    @property
    def masked(self) -> bool:
        return self.config.objective == "masked"

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def end(self) -> int:
        return int(self.tokenizer.eos_token_id)


def run(context: RunContext) -> dict[str, Any]:
    """Prepare, train, measure and publish; returns the report."""
    config = cast(PretrainConfig, context.spec.config)
    micro_batch(config)
    checkpoint = resume(context)
    shape = SHAPES[config.size]
    weights = shape.parameters + config.vocabulary * shape.width
    placement = start(context, weights, checkpoint.step if checkpoint else None)

    # 1. read and clean the text, drop copies, hold some of it out
    corpus = prepare(context, config)
    digest = corpus.digest()
    if checkpoint and checkpoint.state["text"] != digest:
        raise RunError(
            "The text is another one than when this run began; bring it back, or use a new run "
            "folder."
        )

    # 2. make, or open, the tokenizer
    tokenizer = open_tokenizer(context, config, corpus.training, checkpoint)
    go_on(context, PREPARED)

    # 3. make the model; take up an earlier attempt
    fit = open_fit(context, placement, tokenizer, corpus)
    if checkpoint:
        restore(fit, checkpoint)

    # 4. train
    distributed.split(fit.model, fit.optimizer, [fit.parameters])
    if checkpoint:
        load_optimizer(fit.optimizer, checkpoint.tensors)
    train(context, fit, digest)
    fit.model = distributed.join(fit.model, fit.optimizer, [fit.parameters])

    # 5. measure the model as it will be written
    fit.model.to(placement.dtype)
    report = {
        "stage": "pretrain",
        "objective": config.objective,
        "size": config.size,
        "parameters": sum(parameter.numel() for parameter in fit.parameters.values()),
        "vocabulary": len(tokenizer),
        "steps": fit.step,
        "tokens_seen": fit.seen,
        "train_tokens": sum(map(len, fit.training.tokens)),
        **figures_of(fit, fit.heldout, lambda: go_on(context, TRAINED)),
        "corpus": corpus.figures,
    }
    if not corpus.heldout:
        message = "No document was held out, so nobody knows how good this model is."
        context.emit("alert", fit.step, code="no_heldout", message=message)

    # 6. publish
    publish(context.out, lambda folder: write_out(folder, context, fit, corpus, report))
    context.progress(1.0)
    return report


# 1. text ------------------------------------------------------------------------------------------


def prepare(context: RunContext, config: PretrainConfig) -> Corpus:
    """The documents to train and to test on, and what was dropped on the way."""
    read = read_texts(context.input("text"), config.documents)
    cleaned = clean(read)
    if not cleaned:
        raise RunError("The input “text” holds no text at all; add some.")
    distinct, exact = drop_exact(cleaned)

    def after_each(done: int) -> None:
        go_on(context, PREPARED * done / len(distinct))

    kept, near = drop_near(distinct, config.near_duplicate, after_each)
    training, heldout = hold_out(kept, config.heldout_fraction)
    figures = {
        "documents": len(read),
        "characters": sum(len(one.text) for one in read),
        "empty": len(read) - len(cleaned),
        "exact_duplicates": exact.count,
        "near_duplicates": near.count,
        "duplicate_characters": exact.characters + near.characters,
        "train_documents": len(training),
        "train_characters": sum(len(one.text) for one in training),
        "heldout_documents": len(heldout),
        "heldout_characters": sum(len(one.text) for one in heldout),
    }
    return Corpus(training, heldout, figures, {"exact": exact, "near": near})


def go_on(context: RunContext, progress: float) -> None:
    """Tell the progress; stop when asked to, as nothing here needs saving."""
    context.progress(progress)
    context.leave_if_asked()


# 2. tokens ----------------------------------------------------------------------------------------


def open_tokenizer(
    context: RunContext,
    config: PretrainConfig,
    documents: Sequence[Document],
    checkpoint: Checkpoint | None,
) -> Any:
    """The tokenizer of the input, of the earlier attempt, or one made of this text."""
    if "tokenizer" in context.spec.inputs:
        tokenizer = load_tokenizer(context.input("tokenizer"))
        if config.objective == "masked" and tokenizer.mask_token_id is None:
            raise RunError(
                "The input “tokenizer” has no mask token, which config.objective masked needs; "
                "leave the input out to have one made."
            )
        return tokenizer
    if checkpoint:
        return wrap_tokenizer(Tokenizer.from_str(checkpoint.state["tokenizer"]))
    return make_tokenizer([one.text for one in documents], config.vocabulary)


def encode(tokenizer: Any, documents: Sequence[Document]) -> Texts:
    """The tokens of each document; a mark that is written out in the text stays mere text."""
    tokens: list[Ids] = []
    for begin in range(0, len(documents), ENCODED):
        texts = [one.text for one in documents[begin : begin + ENCODED]]
        found = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        tokens += [np.array(ids, dtype=np.int64) for ids in found]
    return Texts(tokens, np.array([len(one.text.encode("utf-8")) for one in documents]))


def lay_out(tokens: Ids, end: int, masked: bool) -> tuple[Ids, Ids]:
    """(inputs, targets) of one document.

    causal: end-of-text, then the tokens, each foretelling the next; masked: each stands for itself.
    """
    closed = np.append(tokens, end)
    return (closed, closed) if masked else (np.insert(tokens, 0, end), closed)


def pack(
    documents: Sequence[Ids], *, end: int, pad: int, masked: bool, apart: bool, length: int
) -> Rows:
    """Full rows of the documents in this order; only the last one is padded."""
    laid = [lay_out(tokens, end, masked) for tokens in documents]
    sizes = [len(inputs) for inputs, _ in laid]
    total = sum(sizes)
    room = -(-total // length) * length
    ids, targets, segments = np.full(room, pad), np.full(room, IGNORED), np.full(room, -1)
    ids[:total] = np.concatenate([inputs for inputs, _ in laid])
    targets[:total] = np.concatenate([wanted for _, wanted in laid])
    segments[:total] = np.repeat(np.arange(len(laid)), sizes) if apart else 0
    place = np.arange(room)
    fresh = (place % length == 0) | (np.diff(segments, prepend=-2) != 0)
    positions = place - np.maximum.accumulate(np.where(fresh, place, 0))
    parts = (ids, targets, segments, positions)
    return Rows(*(torch.from_numpy(part).view(-1, length) for part in parts))


def alone(pieces: Sequence[tuple[Ids, Ids]], pad: int) -> Rows:
    """One row for each piece of a document, padded to the longest."""
    width = max(len(inputs) for inputs, _ in pieces)
    ids, targets = (torch.full((len(pieces), width), fill) for fill in (pad, IGNORED))
    for row, (inputs, wanted) in enumerate(pieces):
        ids[row, : len(inputs)] = torch.from_numpy(inputs)
        targets[row, : len(wanted)] = torch.from_numpy(wanted)
    segments = torch.where(targets == IGNORED, -1, 0)
    return Rows(ids, targets, segments, torch.arange(width).expand(len(pieces), width))


def hide(rows: Rows, tokenizer: Any, share: float, seed: int) -> Rows:
    """The rows with a share of their tokens hidden; only these are to be foretold.

    Of them 80 % become the mask, 10 % any token, 10 % stay as they are (Devlin et al. 2019, §3.1).
    An end-of-text is never hidden, and at least one token of the rows always is.
    """
    dice = torch.Generator().manual_seed(seed)
    shape = rows.ids.shape
    candidates = (rows.targets != IGNORED) & (rows.targets != tokenizer.eos_token_id)
    chance = torch.rand(shape, generator=dice).masked_fill(~candidates, 2.0)
    chosen = candidates & ((chance < share) | (chance == chance.min()))
    kind = torch.rand(shape, generator=dice)
    other = torch.randint(len(tokenizer), shape, generator=dice)
    ids = torch.where(chosen & (kind < 0.8), tokenizer.mask_token_id, rows.ids)
    ids = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), other, ids)
    return rows._replace(ids=ids, targets=torch.where(chosen, rows.targets, IGNORED))


# 3. model -----------------------------------------------------------------------------------------


def open_fit(context: RunContext, placement: Placement, tokenizer: Any, corpus: Corpus) -> Fit:
    """A fresh model, and an optimiser over all of it that decays only its matrices."""
    config = cast(PretrainConfig, context.spec.config)
    torch.manual_seed(context.spec.seed)
    model = new_model(config, tokenizer).to(placement.device)
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in parameters.values() if p.dim() >= 2],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in parameters.values() if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(0.9, 0.95),
    )
    training, heldout = encode(tokenizer, corpus.training), encode(tokenizer, corpus.heldout)
    seed = context.spec.seed
    return Fit(model, tokenizer, config, seed, placement, parameters, optimizer, training, heldout)


def new_model(config: PretrainConfig, tokenizer: Any) -> Any:
    """A decoder or an encoder of the preset's shape, with random weights and without dropout."""
    shape = SHAPES[config.size]
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": config.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "tie_word_embeddings": True,
        "attn_implementation": "sdpa",
    }
    if config.objective == "causal":
        return LlamaForCausalLM(LlamaConfig(intermediate_size=shape.inner, **settings)).eval()
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    wider = shape.inner * 3 // 2
    return BertForMaskedLM(BertConfig(intermediate_size=wider, **plain, **settings)).eval()


def restore(fit: Fit, checkpoint: Checkpoint) -> None:
    """Put back what `checkpoint_now` took, but for the optimiser's state."""
    with torch.no_grad():
        for name, parameter in fit.parameters.items():
            parameter.copy_(checkpoint.tensors[f"model.{name}"])
    fit.step, fit.seen = checkpoint.step, checkpoint.state["seen"]


def checkpoint_now(context: RunContext, fit: Fit, digest: str, loss: float | None = None) -> None:
    """Save what is needed to go on after `fit.step` steps; `loss` is the held-out one there."""
    tensors: dict[str, Tensor] = {
        f"model.{name}": parameter for name, parameter in fit.parameters.items()
    }
    tensors |= optimizer_state(fit.optimizer)
    given = "tokenizer" in context.spec.inputs
    state = {
        "seen": fit.seen,
        "text": digest,
        "tokenizer": None if given else fit.tokenizer.backend_tokenizer.to_str(),
    }
    scores = {} if loss is None else {fit.step: -loss}
    record(context, fit.step, tensors, state, scores)


# 4. training --------------------------------------------------------------------------------------


def train(context: RunContext, fit: Fit, digest: str) -> None:
    """All optimiser steps that are still to do; `digest` names the text in checkpoints."""
    config = fit.config
    epoch_steps = -(-len(rows_of_epoch(fit, 0).ids) // config.batch_size)
    total = config.steps or config.epochs * epoch_steps
    saved = fit.step
    while fit.step < total:
        context.progress(PREPARED + (TRAINED - PREPARED) * fit.step / total)
        distributed.agree_to_stop(context)
        rate = config.lr * schedule(fit.step, total, config.warmup)
        values = take_step(context, fit, rows_of_step(fit, epoch_steps), rate)
        if values is None:
            if saved != fit.step:
                checkpoint_now(context, fit, digest)
            raise Stopped(f"Stopped after {fit.step} of {total} steps.")
        fit.step += 1
        last = fit.step == total
        if last or fit.step % config.measure_every == 0:
            with distributed.whole(fit.model):
                values |= look(fit)
        epoch = fit.step / epoch_steps
        context.emit("metric", fit.step, total=total, **values, lr=rate, epoch=epoch)
        if last or fit.step % config.sample_every == 0:
            with distributed.whole(fit.model):
                write_samples(context, fit, total)
        if last or fit.step % config.checkpoint_every == 0:
            checkpoint_now(context, fit, digest, values.get("heldout_loss"))
            saved = fit.step


def rows_of_epoch(fit: Fit, epoch: int) -> Rows:
    """All rows of an epoch, whose order of documents follows from the seed and its number."""
    if fit.packed is None or fit.packed[0] != epoch:
        dice = torch.Generator().manual_seed(answer_seed(fit.seed, "epoch", epoch))
        order = torch.randperm(len(fit.training.tokens), generator=dice).tolist()
        rows = pack(
            [fit.training.tokens[place] for place in order],
            end=fit.end,
            pad=fit.pad,
            masked=fit.masked,
            apart=fit.config.apart,
            length=fit.config.max_length,
        )
        fit.packed = (epoch, rows)
    return fit.packed[1]


def rows_of_step(fit: Fit, epoch_steps: int) -> Rows:
    """The rows that the next step learns from, whatever the micro-batches."""
    epoch, place = divmod(fit.step, epoch_steps)
    size = fit.config.batch_size
    rows = rows_of_epoch(fit, epoch).part(place * size, (place + 1) * size)
    if not fit.masked:
        return rows
    seed = answer_seed(fit.seed, "hide", fit.step)
    return hide(rows, fit.tokenizer, fit.config.mask_share, seed)


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak rate: linear up over the warm-up, then half a cosine down to a tenth."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    done = (step + 1 - rising) / max(1, total - rising)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def micro_batch(config: PretrainConfig) -> int:
    """Rows that go through the model at once."""
    return min(config.micro_batch_size or config.batch_size, config.batch_size)


def take_step(context: RunContext, fit: Fit, rows: Rows, rate: float) -> dict[str, Any] | None:
    """One optimiser step over these rows; each token counts the same in any micro-batch.

    Returns the metrics. When the run is asked to stop, the started step is dropped: None.
    """
    size = micro_batch(fit.config)
    count = max(1, int((rows.targets != IGNORED).sum()))
    mine = Rows(*map(distributed.own, rows))
    total = 0.0
    passes = max(1, -(-len(mine.ids) // size))
    passes += distributed.idle_passes(passes)
    for begin in range(0, passes * size, size):
        if context.should_stop():
            fit.optimizer.zero_grad(set_to_none=True)
            return None
        part = mine.part(begin, begin + size)
        if not len(part.ids):
            part = silent(rows.part(0, 1))
        loss = token_losses(fit, part, fit.config.apart).sum() / count
        loss.backward()
        total += loss.item()
    (total,) = distributed.sums([total])
    distributed.sum_gradients(fit.parameters.values())
    norm = distributed.clip_gradients(fit.parameters.values(), fit.config.grad_clip or math.inf)
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise no_number("The loss is", fit.step + 1)
    for group in fit.optimizer.param_groups:
        group["lr"] = rate
    fit.optimizer.step()
    fit.optimizer.zero_grad(set_to_none=True)
    fit.seen += int((rows.segments >= 0).sum())
    return {"loss": total, "grad_norm": norm, "tokens": fit.seen}


def silent(rows: Rows) -> Rows:
    """The rows with nothing to foretell: a process without any adds 0 to every gradient."""
    return rows._replace(targets=torch.full_like(rows.targets, IGNORED))


def token_losses(fit: Fit, rows: Rows, apart: bool) -> Tensor:
    """−log p of every token that is to be foretold, in nats, (n,) in the order of the rows."""
    rows = Rows(*(tensor.to(fit.placement.device) for tensor in rows))
    wanted = rows.targets != IGNORED
    quick = fit.placement.dtype == torch.bfloat16
    with torch.autocast(fit.placement.device.type, torch.bfloat16, enabled=quick):
        states = trunk(fit.model)(
            input_ids=rows.ids,
            attention_mask=sight(rows.segments, fit.masked, apart),
            position_ids=rows.positions,
        ).last_hidden_state
        head = fit.model.cls if fit.masked else fit.model.lm_head
        logits = head(states[wanted])
    return nn.functional.cross_entropy(logits.float(), rows.targets[wanted], reduction="none")


def sight(segments: Tensor, masked: bool, apart: bool) -> Tensor | None:
    """(b, 1, t, t): True where the row's token may see the column's; None for every earlier one.

    Padding sees padding: no token sees nothing, and behind the last document it disturbs nobody.
    """
    if not (masked or apart):
        return None
    seen = segments[:, :, None] == segments[:, None, :]
    return (seen if masked else seen.tril())[:, None]


def look(fit: Fit) -> dict[str, Any]:
    """Figures of the first held-out documents, for the course of the run."""
    first = Texts(fit.heldout.tokens[:LOOKS], fit.heldout.size[:LOOKS])
    figures = figures_of(fit, first)
    names = ("heldout_loss", "perplexity", "bits_per_byte")
    return {name: figures[name] for name in names if figures[name] is not None}


def write_samples(context: RunContext, fit: Fit, total: int) -> None:
    """Let a decoder go on from the openings of a few fixed documents."""
    if fit.masked or not fit.config.samples:
        return
    documents = fit.heldout.tokens or fit.training.tokens
    longest = max(1, min(OPENING, fit.config.max_length // 2))
    openings = [
        whole_letters(fit.tokenizer, tokens[:longest].tolist())
        for tokens in documents[: fit.config.samples]
    ]
    written = generate(
        fit.model,
        [[fit.end, *opening] for opening in openings],
        [[answer_seed(fit.seed, "sample", place)] for place in range(len(openings))],
        Sampling(min(fit.config.sample_tokens, fit.config.max_length - longest - 1), TEMPERATURE),
        stop=[fit.end],
        pad=fit.pad,
    )
    samples = [
        {
            "prompt": fit.tokenizer.decode(openings[one.prompt]),
            "text": fit.tokenizer.decode(one.ids, skip_special_tokens=True),
            "finished": one.finished,
        }
        for one in written
    ]
    context.emit("sample", fit.step, total=total, samples=samples)


def whole_letters(tokenizer: Any, tokens: list[int]) -> list[int]:
    """The tokens up to the last whole letter: one of Chinese may be of several, and be cut."""
    while len(tokens) > 1 and tokenizer.decode(tokens).endswith("\N{REPLACEMENT CHARACTER}"):
        tokens = tokens[:-1]
    return tokens


# 5. measuring -------------------------------------------------------------------------------------


def figures_of(
    fit: Fit, texts: Texts, after_batch: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Loss a token, perplexity and bits a byte of these documents, with 95 % intervals.

    The masked objective has no bits a byte: it foretells only what is hidden.
    """
    sums, counts = measure(fit, texts, after_batch)
    loss = clustered_ratio(sums, counts)
    size = texts.size.astype(np.float64) * math.log(2)
    bits = None if fit.masked else clustered_ratio(sums, size)
    return {
        "heldout_tokens": int(counts.sum()),
        **_figure("heldout_loss", loss),
        **_figure("perplexity", loss, perplexity),
        **_figure("bits_per_byte", bits),
    }


def _figure(
    name: str, found: Estimate | None, of: Callable[[float], float] = float
) -> dict[str, Any]:
    """A figure (or a rising function of it) and its interval; one document alone has none."""
    edges = found.ci95 if found and found.n > 1 else None
    return {
        name: of(found.value) if found else None,
        f"{name}_ci95": [of(edge) for edge in edges] if edges else None,
    }


@torch.no_grad()
def measure(
    fit: Fit, texts: Texts, after_batch: Callable[[], None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(nats, tokens) of each document, read on its own; what the window does not hold goes on in a
    window of its own. `after_batch` may raise to break off.
    """
    length = fit.config.max_length
    pieces: list[tuple[int, Ids, Ids]] = []
    for place, tokens in enumerate(texts.tokens):
        inputs, targets = lay_out(tokens, fit.end, fit.masked)
        for begin in range(0, len(inputs), length):
            piece = slice(begin, begin + length)
            pieces.append((place, inputs[piece], targets[piece]))
    sums, counts = np.zeros(len(texts.tokens)), np.zeros(len(texts.tokens))
    budget = micro_batch(fit.config) * length
    for bucket in length_buckets([len(inputs) for _, inputs, _ in pieces], budget):
        after_batch()
        rows = alone([pieces[index][1:] for index in bucket], fit.pad)
        if fit.masked:
            # Each bucket has dice of its own: the same tokens are hidden at every look.
            seed = answer_seed(fit.seed, "test", bucket[0])
            rows = hide(rows, fit.tokenizer, fit.config.mask_share, seed)
        losses = token_losses(fit, rows, apart=True).double().cpu()
        row = (rows.targets != IGNORED).nonzero()[:, 0].numpy()
        owner = np.array([pieces[index][0] for index in bucket])[row]
        sums += np.bincount(owner, weights=losses.numpy(), minlength=len(sums))
        counts += np.bincount(owner, minlength=len(counts))
    return sums, counts


# 6. publishing ------------------------------------------------------------------------------------


def write_out(
    folder: Path, context: RunContext, fit: Fit, corpus: Corpus, report: Mapping[str, Any]
) -> None:
    """Model, tokenizer, figures, dropped copies and card, as transformers and people read them."""
    if not fit.masked:
        fit.model.generation_config.eos_token_id = fit.end
        fit.model.generation_config.pad_token_id = fit.pad
    fit.model.save_pretrained(str(folder))
    fit.tokenizer.save_pretrained(str(folder))
    copies = {name: dataclasses.asdict(found) for name, found in corpus.copies.items()}
    for name, body in (("report.json", report), ("duplicates.json", copies)):
        text = json.dumps(body, indent=1, ensure_ascii=False)
        (folder / name).write_text(text + "\n", "utf-8")
    write_card(context, folder, card(context, fit, report))


def card(context: RunContext, fit: Fit, report: Mapping[str, Any]) -> Card:
    """What the model card says."""
    corpus = report["corpus"]
    kind, loader = (
        ("encoder", "AutoModelForMaskedLM") if fit.masked else ("decoder", "AutoModelForCausalLM")
    )
    figures = ["no document was held out, so how well it foretells is not known"]
    if report["perplexity"] is not None:
        what = "hidden tokens" if fit.masked else "tokens"
        figures = [
            f"perplexity {with_interval(report['perplexity'], report['perplexity_ci95'], '.2f')} "
            f"over the {report['heldout_tokens']} {what} of {corpus['heldout_documents']} held-out "
            "documents"
        ]
    if report["bits_per_byte"] is not None:
        bits = with_interval(report["bits_per_byte"], report["bits_per_byte_ci95"])
        figures.append(f"{bits} bits a byte of the same documents")
    name = Path(str(context.input("text"))).name
    return Card(
        title=f"Pretrained {kind}",
        about=(
            f"{report['parameters'] / 1e6:.1f} million parameters, {report['vocabulary']} tokens, "
            f"trained from random weights on the text `{name}`: {report['steps']} steps, "
            f"{report['tokens_seen']} tokens. Of {corpus['documents']} documents "
            f"{corpus['empty']} were empty, {corpus['exact_duplicates']} exact and "
            f"{corpus['near_duplicates']} near copies (`duplicates.json`); "
            f"{corpus['train_documents']} were trained on."
        ),
        figures=figures,
        use=f"`{loader}.from_pretrained` loads it, `AutoTokenizer` its tokenizer.",
        limits=(
            "It has read this text and nothing else. It was not taught to answer: `sft` does that."
        ),
    )
