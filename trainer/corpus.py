"""Raw text made ready to train a language model on: read, cleaned, copies dropped, tokenized.

One function a step, in the order in which they run: `read_texts`, `clean`, `drop_exact`,
`drop_near`, `hold_out`, `make_tokenizer`.

Choices
- Of several copies the first one stays, files in the order of their names.
- Near copies share most of their runs of five words. Candidates come from MinHash signatures in
  bands (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", ch. 3) and are
  then compared exactly, so that only copies missed by chance cost anything, never a text of its
  own.
- A Chinese or Japanese character counts as a word: these scripts put no blanks between words.
- Whether a document is held out follows from its own text, whatever else the corpus holds.
- The tokenizer works on bytes (Sennrich et al. 2016; Radford et al. 2019): any text comes back as
  it was, in any script.
Not here: language or quality filters, downloading, training.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trainer.data import DataError, read_documents
from trainer.events import RunError

#: names that are read out of a folder
KINDS = (".jsonl", ".txt", ".txt.gz", ".json")
#: where a record of a collection (.json) has its text, as one piece or as a list of lines
TEXT_KEYS = ("text", "paragraphs", "content")
#: words in a run
RUN = 5
#: length of a signature
PERMUTATIONS = 128
#: words whose signature is computed at once, for the sake of memory
CHUNK = 4096
#: examples of copies that the report shows, and characters of each
EXAMPLES, EXCERPT = 10, 120

PAD, END, MASK = "<|pad|>", "<|end|>", "<|mask|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
# An answer closes with the end mark; a turn of the user is closed by the mark of the next speaker.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# A character of a script without blanks stands alone; elsewhere letters and digits make words.
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+")

# Control characters but tab and line end, lone surrogates, byte-order marks. The joiners inside
# emoji are none of these.
USELESS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Document:
    """One piece of text and where it came from, such as `plays.txt:7`."""

    where: str
    text: str


@dataclass
class Copies:
    """What a step of de-duplication dropped: how many documents, and some of them to look at."""

    count: int = 0
    characters: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, dropped: Document, kept: Document, similarity: float) -> None:
        """Note one document that was dropped because of another."""
        self.count += 1
        self.characters += len(dropped.text)
        if len(self.examples) < EXAMPLES:
            self.examples.append(
                {
                    "dropped": dropped.where,
                    "kept": kept.where,
                    "similarity": round(similarity, 3),
                    "dropped_text": dropped.text[:EXCERPT],
                    "kept_text": kept.text[:EXCERPT],
                }
            )


# reading ------------------------------------------------------------------------------------------


def read_texts(path: Path, unit: str) -> list[Document]:
    """Every document of a file, or of a folder's .jsonl, .json, .txt and .txt.gz files.

    `unit` says what a document is in a text file: `paragraphs`, `lines` or `files`. A .json file is
    a list of records, such as poems; one in a folder that is no list is about something else.
    """
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and _kind(one))
        files = [one for one in files if _kind(one) != ".json" or isinstance(_json(one), list)]
        if not files:
            raise DataError(f"{path} holds no {', '.join(KINDS)} file: put the text there.")
        names = [file.relative_to(path).as_posix() for file in files]
    elif _kind(path):
        files, names = [path], [path.name]
    else:
        raise DataError(f"{path} is no {', '.join(KINDS)} file: save the text as one of these.")
    documents = []
    for file, name in zip(files, names, strict=True):
        documents += [Document(f"{name}:{at}", text) for at, text in _documents(file, unit)]
    return documents


def _kind(path: Path) -> str | None:
    return next((kind for kind in KINDS if path.name.endswith(kind)), None)


def _documents(file: Path, unit: str) -> Iterator[tuple[int, str]]:
    """(line in the file, text) of each document of one file."""
    if _kind(file) == ".jsonl":
        yield from read_documents(file)
        return
    if _kind(file) == ".json":
        yield from _records(file)
        return
    text = _plain_text(file)
    if unit == "files":
        yield 1, text
        return
    lines = text.split("\n")
    if unit == "lines":
        yield from enumerate(lines, start=1)
        return
    begin = 0
    for at in range(len(lines) + 1):
        if at == len(lines) or not lines[at].strip():
            if at > begin:
                yield begin + 1, "\n".join(lines[begin:at])
            begin = at + 1


def _json(file: Path) -> Any:
    try:
        return json.loads(_plain_text(file))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: not JSON ({error.msg}): mend the file.") from None


def _records(file: Path) -> Iterator[tuple[int, str]]:
    """(number of the record, text) of a .json list of records, lines of a record joined."""
    body = _json(file)
    for number, record in enumerate(body if isinstance(body, list) else [body], start=1):
        found = (
            [record[key] for key in TEXT_KEYS if key in record] if isinstance(record, dict) else []
        )
        lines = found[0] if found and isinstance(found[0], list) else found[:1]
        if not lines or not all(isinstance(line, str) for line in lines):
            raise DataError(
                f"{file}, record {number}: it has no {' or '.join(TEXT_KEYS)} that is text or a "
                "list of lines: give each record one, or take the file away."
            )
        yield number, "\n".join(lines)


def _plain_text(file: Path) -> str:
    try:
        body = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{file}:{line}: not UTF-8 text: save the file as UTF-8.") from None
    except (EOFError, OSError) as error:
        raise DataError(f"{file} cannot be read ({error}): check or replace it.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


# cleaning -----------------------------------------------------------------------------------------


def clean(documents: Sequence[Document]) -> list[Document]:
    """Documents in Unicode's composed form (NFC), without control characters; empty ones go."""
    cleaned = (replace(one, text=clean_text(one.text)) for one in documents)
    return [one for one in cleaned if one.text]


def clean_text(text: str) -> str:
    """NFC; no control characters but line ends and tabs; no blanks before a line end or around."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = USELESS.sub("", text)
    kept = re.sub(r"[^\S\n]+\n", "\n", kept)
    return re.sub(r"\n{3,}", "\n\n", kept).strip()


# copies -------------------------------------------------------------------------------------------


def drop_exact(documents: Sequence[Document]) -> tuple[list[Document], Copies]:
    """The first of all documents that are equal but for case, width and blanks."""
    first: dict[bytes, Document] = {}
    copies = Copies()
    for one in documents:
        kept = first.setdefault(_fingerprint(one.text), one)
        if kept is not one:
            copies.add(one, kept, 1.0)
    return list(first.values()), copies


def _fingerprint(text: str) -> bytes:
    """sha256 of the text in compatibility form (NFKC), case folded, each blank a single space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return hashlib.sha256(" ".join(folded.split()).encode("utf-8")).digest()


def drop_near(
    documents: Sequence[Document],
    threshold: float,
    after_each: Callable[[int], None] = lambda done: None,
) -> tuple[list[Document], Copies]:
    """The documents whose runs of words overlap with no earlier kept one's by `threshold` or more.

    `after_each` hears how many documents are done; it may raise to break off.

    1. Hash every run of five words.
    2. Find earlier documents that may be alike: equal in some band of their MinHash signatures.
    3. Count what the two really share, |A ∩ B| / |A ∪ B| (Jaccard).
    """
    copies = Copies()
    if threshold >= 1:
        return list(documents), copies
    # A candidate too many costs one comparison, one too few leaves a copy: misses weigh more.
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    kept: list[Document] = []
    runs: list[Hashes] = []
    for done, one in enumerate(documents):
        after_each(done)
        mine = run_hashes(one.text)
        signature = _signature(mine)
        alike = [(jaccard(mine, runs[at]), -at) for at in index.query(signature)]
        similarity, at = max(alike, default=(0.0, 0))
        if similarity >= threshold:
            copies.add(one, kept[-at], similarity)
            continue
        index.insert(len(kept), signature)
        kept.append(one)
        runs.append(mine)
    return kept, copies


def run_hashes(text: str) -> Hashes:
    """The different runs of five words in the text, each as a number of 64 bits, sorted.

    A text of fewer words is one single run; one without words is a run of its signs.
    """
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [text]
    count = max(1, len(words) - RUN + 1)
    hashed = {
        hashlib.blake2b("\x1f".join(words[at : at + RUN]).encode(), digest_size=8).digest()
        for at in range(count)
    }
    return np.sort(np.frombuffer(b"".join(hashed), dtype=np.uint64))


def _signature(runs: Hashes) -> MinHash:
    signature = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")
    short = (runs & np.uint64(0xFFFFFFFF)).tolist()
    for begin in range(0, len(short), CHUNK):
        signature.update_batch(short[begin : begin + CHUNK])
    return signature


def jaccard(one: Hashes, other: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted sets without repetitions."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


# holding out --------------------------------------------------------------------------------------


def hold_out(
    documents: Sequence[Document], fraction: float
) -> tuple[list[Document], list[Document]]:
    """(training documents, held-out ones): a document's own hash decides.

    Where chance would leave a side empty, the nearest document goes there; one alone trains.
    """
    if fraction <= 0 or len(documents) < 2:
        return list(documents), []
    place = [int.from_bytes(_fingerprint(one.text)[:8], "big") / 2**64 for one in documents]
    lowest, highest = min(place), max(place)
    border = min(max(fraction, float(np.nextafter(lowest, 1))), highest)
    training = [one for one, at in zip(documents, place, strict=True) if at >= border]
    heldout = [one for one, at in zip(documents, place, strict=True) if at < border]
    return training, heldout


# tokens -------------------------------------------------------------------------------------------


def make_tokenizer(texts: Sequence[str], size: int) -> Any:
    """A byte-level BPE tokenizer of exactly `size` tokens, with a chat template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END, MASK, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    if core.get_vocab_size() < size:
        raise RunError(
            f"The text is too little for config.vocabulary = {size}: it gives only "
            f"{core.get_vocab_size()} tokens; add text or set config.vocabulary to that or less."
        )
    return wrap_tokenizer(core)


def wrap_tokenizer(core: Tokenizer) -> Any:
    """The tokenizer as transformers knows it."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        mask_token=MASK,
        additional_special_tokens=list(ROLES),
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
