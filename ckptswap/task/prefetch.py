"""Reading ahead of whoever works on what was read."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")


def read_ahead(read: Callable[[Key], Found], keys: Iterable[Key], *, threads: int, ahead: int) -> Generator[Found]:
    """`read(key)` for each key, in order, by threads that are at most `ahead` keys ahead.

    What `read` raises is raised here, when its turn comes. The threads end with the iterator, when it is
    exhausted, raises or is closed; no further key is begun then.

    >>> list(read_ahead(abs, [-1, 2, -3], threads=2, ahead=2))
    [1, 2, 3]
    """
    left = iter(keys)
    waiting: deque[Future[Found]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ckptswap-read")
    try:
        waiting.extend(pool.submit(read, key) for key in islice(left, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, key) for key in islice(left, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
