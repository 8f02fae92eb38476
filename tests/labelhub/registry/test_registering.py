"""Bringing model folders in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from labelhub.lib.errors import Refused
from labelhub.registry.actions import register_base
from labelhub.registry.models import ModelVersion

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in two files."""
    (tmp_path / "manifest.json").write_text("{}")
    half = np.zeros((2, 3), np.float16)
    save_file({"a": half, "b": np.zeros(4, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"c": half}, tmp_path / "model-2.safetensors")
    return tmp_path


def test_a_model_says_how_many_parameters_it_has(folder: Path) -> None:
    assert register_base(name="small", folder=folder, by=None).parameters == 6 + 4 + 6


def test_damaged_weights_are_refused_by_name(folder: Path) -> None:
    (folder / "model-2.safetensors").write_bytes(b"no weights")
    with pytest.raises(Refused, match=r"model-2\.safetensors is damaged"):
        register_base(name="small", folder=folder, by=None)
    assert not ModelVersion.objects.exists()
