"""Front-end libraries out of node_modules: only the files named here, as static/vendor/NAME.

node_modules is no static folder as a whole: collectstatic would copy everything in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

VENDOR = {
    "vendor/sortable.js": "sortablejs/modular/sortable.esm.js",
    # array.js imports ./base.js beside it
    "vendor/diff/array.js": "diff/libesm/diff/array.js",
    "vendor/diff/base.js": "diff/libesm/diff/base.js",
}


class VendorFinder(BaseFinder):
    """Finds `vendor/…` files; the table above is the whole list."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.root = Path(settings.BASE_DIR) / "node_modules"
        super().__init__(*args, **kwargs)

    def check(self, **kwargs: Any) -> list[Any]:
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        file = self.root / VENDOR[path] if path in VENDOR else None
        found = [str(file)] if file and file.is_file() else []
        return found if find_all else (found[0] if found else [])

    def list(self, ignore_patterns: Any) -> Iterator[tuple[str, FileSystemStorage]]:
        for name, source in VENDOR.items():
            if (self.root / source).is_file():
                yield name, _Renamed(self.root, name, source)


class _Renamed(FileSystemStorage):
    """Opens the library's own file under the short name that templates use."""

    def __init__(self, root: Path, name: str, source: str) -> None:
        super().__init__(location=root)
        self.prefix = None
        self._names = {name: source}

    def path(self, name: str) -> str:
        return super().path(self._names.get(name, name))
