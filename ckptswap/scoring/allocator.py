"""glibc's allocator, told to keep freed memory: for processes of our own only.

A forward pass allocates and frees the same large tensors over and over. glibc takes large blocks afresh from the
system each time, which must first clear their pages. Keeping them costs the memory of the largest moment, and
cannot be undone. Source: mallopt(3); benchmarks/sweep.py measures what it gains.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_MOST = 2**31 - 1
_STEP = 64 << 20
"""The heap grows by so much at a time."""


def keep_freed_memory() -> bool:
    """Make this process keep what it frees for its next allocations; whether its allocator can be told so."""
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _MOST, _TOP_PAD: _STEP}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())
