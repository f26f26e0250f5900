"""In what order samples are walked, and in which batches: one seeded permutation, the same in every command.

Any first part of the walk is thereby a random sample of the data, whatever order the data is in.
"""

from collections.abc import Hashable, Sequence

import numpy as np

SEED = 3411
"""Fixed: the last bits of scores depend on which samples share a batch."""


def permutation(count: int, seed: int = SEED) -> np.ndarray:
    """0 … count − 1 in random order, (count,) int64, always the same one.

    It sorts the raw output of PCG64, a stream that numpy promises never to change.

    >>> permutation(5).tolist()
    [2, 1, 0, 4, 3]
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)


def batches_of(kinds: Sequence[Hashable], size: int) -> list[np.ndarray]:
    """The samples' places (n,) int64 of each batch: at most `size` samples, all of one kind.

    Each kind fills its batches in the order of the permutation, and only its last one may be small. Where kinds
    differ, the batches are permuted once more, so that each is as likely to come first as any other.

    >>> [places.tolist() for places in batches_of("aabaa", 2)]
    [[1, 0], [2], [4, 3]]
    """
    by_kind: dict[Hashable, list[int]] = {}
    for place in permutation(len(kinds)).tolist():
        by_kind.setdefault(kinds[place], []).append(place)
    batches = [
        np.array(places[start : start + size], np.int64)
        for places in by_kind.values()
        for start in range(0, len(places), size)
    ]
    return batches if len(by_kind) < 2 else [batches[number] for number in permutation(len(batches), SEED + 1)]


def reordered(sizes: Sequence[int]) -> list[np.ndarray]:
    """The samples' places of each ready-made batch, the batches in the order of the permutation.

    >>> [places.tolist() for places in reordered([2, 1, 2])]
    [[3, 4], [2], [0, 1]]
    """
    places = np.split(np.arange(sum(sizes), dtype=np.int64), np.cumsum(sizes)[:-1])
    return [places[number] for number in permutation(len(sizes))]


def in_data_order(parts: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of batches (n, …), whose samples have the given places (n,), as one array (N, …) in the data's order.

    >>> in_data_order([np.array([20, 0]), np.array([10])], [np.array([2, 0]), np.array([1])]).tolist()
    [0, 10, 20]
    """
    rows = np.concatenate(parts)
    ordered = np.empty_like(rows)
    ordered[np.concatenate(places)] = rows
    return ordered
