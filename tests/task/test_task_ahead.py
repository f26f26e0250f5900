"""Reading ahead: in order, within bounds, and no thread outlives the iterator."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from ckptswap.task.prefetch import read_ahead


def readers() -> int:
    return sum(each.name.startswith("ckptswap-read") for each in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4, 99])
def test_all_are_read_in_order(threads: int, ahead: int) -> None:
    assert list(read_ahead(lambda key: key * key, range(20), threads=threads, ahead=ahead)) == [
        key * key for key in range(20)
    ]
    assert readers() == 0


def test_nothing_to_read() -> None:
    assert list(read_ahead(abs, [], threads=2, ahead=2)) == []


def test_it_reads_ahead_but_not_too_far() -> None:
    begun = []
    sixth = threading.Event()

    def read(key: int) -> int:
        begun.append(key)
        if key == 5:
            sixth.set()
        return key

    with closing(read_ahead(read, range(100), threads=2, ahead=5)) as found:
        assert next(found) == 0
        assert sixth.wait(10)  # the five after the first are read while nobody asks
    assert sorted(begun) == list(range(6))
    assert readers() == 0


def test_one_thread_reads_one_at_a_time() -> None:
    inside = threading.Lock()

    def read(key: int) -> str:
        assert inside.acquire(blocking=False)
        name = threading.current_thread().name
        inside.release()
        return name

    names = set(read_ahead(read, range(50), threads=1, ahead=10))
    assert len(names) == 1
    assert threading.current_thread().name not in names


class Broken(Exception):
    pass


def test_what_a_reading_raises_comes_in_its_turn() -> None:
    def read(key: int) -> int:
        if key == 3:
            raise Broken(key)
        return key

    found = read_ahead(read, range(9), threads=2, ahead=6)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Broken, match="3"):
        next(found)
    assert readers() == 0


def test_whoever_stops_early_leaves_no_thread() -> None:
    begun = []
    for key in read_ahead(lambda key: begun.append(key) or key, range(1000), threads=2, ahead=4):
        if key == 1:
            break
    assert readers() == 0
    assert len(begun) <= 6
