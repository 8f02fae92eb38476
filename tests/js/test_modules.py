"""The pure parts of the browser's modules, under node's own test runner."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.install import node_tool
from tests.servers import unavailable

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_it_passes(file: Path) -> None:
    node = node_tool("node")
    if node is None:
        unavailable("There is no node of version 20 or newer: run ./run setup.")
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# pass 0" not in done.stdout, "no test ran"
