"""How many threads torch computes with: the last bits of sums depend on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def pinned_threads(count: int) -> Iterator[None]:
    """This number of threads, in this thread and in those that begin meanwhile; as it was afterwards.

    >>> with pinned_threads(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
