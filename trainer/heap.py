"""Memory that was freed goes back to the system. Needs no torch.

Texts have other lengths in every batch, so tensors leave holes of all sizes in the heap, and small
things that stay keep glibc from giving the holes back: a reward run on real conversations held
0.96 GiB and filled 2.9. Asked for it (`malloc_trim`), glibc hands back every free page, also from
the middle.

Choices
- Now and then, not after every batch: what is handed back has to be fetched again, page by page.
- Not a fixed threshold for mapped blocks (`MALLOC_MMAP_THRESHOLD_`): that fetches pages anew for
  every large tensor, which took a seventh more of processor time.
Not here: a GPU's memory, which PyTorch keeps by itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

try:
    _trim: Callable[[int], int] | None = ctypes.CDLL(None).malloc_trim
except (OSError, AttributeError, TypeError):  # another C library
    _trim = None


def give_back() -> None:
    """Hand free pages of the heap back to the system, where the C library can."""
    if _trim is not None:
        _trim(0)
