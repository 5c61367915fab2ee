"""glibc's allocator, told to keep memory that it would give back: fresh pages cost more than what is done with them."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt (malloc.h)."""
TOP_PAD_BYTES = 16 << 20


def keep_pages(most_bytes: int) -> None:
    """Keeps up to `most_bytes` of free memory at the top of this process's heap, and takes blocks of all sizes from
    there. Without, a body of 2 MB is mapped and faulted in anew for every request, and a picture of 12 megapixels takes
    60 ms to decode instead of 39. (A threshold above which blocks are mapped is at most 32 MiB, and that picture has
    48.) Does nothing with another C library."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, most_bytes)
        libc.mallopt(M_TOP_PAD, TOP_PAD_BYTES)
