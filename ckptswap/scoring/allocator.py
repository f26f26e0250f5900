"""glibc's allocator, told to keep freed memory: for processes of our own only.

A forward pass allocates and frees the same large tensors over and over. glibc takes large blocks (of 128 kB and
more; by its own adaptation 32 MB) afresh from the system each time, and gives the free top back, so that every
output is written to pages that the system must first clear. Keeping them costs the memory of the largest moment.
It cannot be undone, so a library must not do it to its caller's process; our program and its workers may.

Source: mallopt(3); benchmarks/sweep.py measures what it gains.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_MOST = 2**31 - 1
_STEP = 64 << 20
"""The heap grows by so much at a time."""


def keep_freed_memory() -> bool:
    """Make this process keep what it frees for its next allocations; whether its allocator can be told so."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _MOST, _TOP_PAD: _STEP}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())
