"""In what order samples are walked, and in which batches: one seeded permutation, the same in every command.

Any first part of the walk is thereby a random sample of the data, whatever order the data is in. Where verdicts
are to be known early, whole groups of samples are permuted instead (`batches_by_group`).
"""

from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from ckptswap.statistics.sequential import looks_of

SEED = 3411
"""Fixed: the last bits of scores depend on which samples share a batch."""
GOLDEN = 0.6180339887498949


def permutation(count: int, seed: int = SEED) -> np.ndarray:
    """0 … count − 1 in random order, (count,) int64, always the same one.

    It sorts the raw output of PCG64, a stream that numpy promises never to change.

    >>> permutation(5).tolist()
    [2, 1, 0, 4, 3]
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)


def batches_of(kinds: Sequence[Hashable], size: int, first: Sequence[int] = ()) -> list[np.ndarray]:
    """The samples' places (n,) int64 of each batch: at most `size` samples, all of one kind.

    Each kind fills its batches in the order of the permutation, and only its last one may be small. Where kinds
    differ, the batches are permuted once more, so that each is as likely to come first as any other. The samples
    in the places `first` have batches of their own, before all others.

    >>> [places.tolist() for places in batches_of("aabaa", 2)]
    [[1, 0], [2], [4, 3]]
    >>> [places.tolist() for places in batches_of("aabaa", 2, first=[0])]
    [[0], [1, 4], [2], [3]]
    """
    ahead = set(first)
    rest = [place for place in permutation(len(kinds)).tolist() if place not in ahead]
    batches, are_several = _cut(rest, kinds, size)
    ordered = [batches[number] for number in permutation(len(batches), SEED + 1)] if are_several else batches
    return [*_cut(first, kinds, size)[0], *ordered]


def drawing_order(count: int, *strata: Sequence[Hashable]) -> np.ndarray:
    """The places 0 … count − 1 in the order in which samples are drawn, (count,) int64, always the same one: each
    first part of it is a random sample that has of every stratum about its share.

    Strata are one a place. Of several sorts the first counts most: each of its strata is ordered by the next sort.

    >>> drawing_order(8, "aaaaaabb", [0, 1] * 4)[:4].tolist()
    [2, 5, 0, 7]
    """
    order = permutation(count)
    for sort, values in reversed([*enumerate(strata)]):
        order = _evenly(values, order, SEED + 2 + sort)
    return order


def _evenly(strata: Sequence[Hashable], order: np.ndarray, seed: int) -> np.ndarray:
    """Places in this order, but the j-th of n in a stratum at (j + a random part of 1) / n of the way."""
    numbers = {stratum: number for number, stratum in enumerate(dict.fromkeys(strata))}
    own = np.array([numbers[stratum] for stratum in strata], np.int64)[order]
    sizes, by_stratum = np.bincount(own), np.argsort(own, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[by_stratum] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    parts = np.random.PCG64(seed).random_raw(len(numbers)) / 2.0**64
    return order[np.argsort((rank + parts[own]) / sizes[own], kind="stable")]


def _cut(walk: Sequence[int], kinds: Sequence[Hashable], size: int) -> tuple[list[np.ndarray], bool]:
    """A walk in batches of one kind, kind after kind, and whether there are several kinds."""
    by_kind: dict[Hashable, list[int]] = {}
    for place in walk:
        by_kind.setdefault(kinds[place], []).append(place)
    batches = [
        np.array(alike[start : start + size], np.int64)
        for alike in by_kind.values()
        for start in range(0, len(alike), size)
    ]
    return batches, len(by_kind) > 1


def batches_by_group(kinds: Sequence[Hashable], groups: np.ndarray, size: int) -> list[np.ndarray]:
    """The same for a walk by groups (N,), numbered 0 … G − 1: these are what is permuted, and no batch has samples
    from before and after a look (`statistics.sequential.looks_of`).

    >>> [places.tolist() for places in batches_by_group("a" * 20, np.arange(20) // 2, 7)]
    [[16, 17, 4, 5, 10, 11, 2], [3, 0, 1, 14, 15, 8, 9], [18, 19], [12, 13, 6, 7]]
    """
    turn = _turns(groups)
    order = np.argsort(turn, kind="stable")
    cuts = np.searchsorted(turn[order], [0, *looks_of(int(groups.max()) + 1)])
    return [batch for start, end in pairwise(cuts) for batch in _cut(order[start:end].tolist(), kinds, size)[0]]


def _turns(groups: np.ndarray) -> np.ndarray:
    """At which place in the permutation of the groups each sample's own stands (N,)."""
    return np.argsort(permutation(int(groups.max()) + 1))[groups]


def reordered(sizes: Sequence[int], first: Sequence[int] = ()) -> list[np.ndarray]:
    """The samples' places of each ready-made batch, the batches in the order of the permutation.

    Before all others come batches that hold places of `first`, one after the other, until they have as many
    samples as `first`.

    >>> [places.tolist() for places in reordered([2, 1, 2])]
    [[3, 4], [2], [0, 1]]
    >>> [places.tolist() for places in reordered([2, 1, 2], first=[2, 4])]
    [[2], [3, 4], [0, 1]]
    """
    ends = np.cumsum(sizes)
    places = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
    ahead: list[int] = []
    for number in dict.fromkeys(np.searchsorted(ends, first, side="right").tolist()):
        if sum(sizes[other] for other in ahead) < len(first):
            ahead.append(number)
    rest = [number for number in permutation(len(sizes)).tolist() if number not in ahead]
    return [places[number] for number in [*ahead, *rest]]


def spread(classes: Sequence[int], groups: Sequence[int], count: int) -> list[int]:
    """The places of `count` samples that are spread evenly: over classes, over groups, and over the data.

    Samples sorted by class, group and place are cut in `count` equal stretches, and each gives one, at a point
    that moves by the golden ratio, so that stretches of equal form do not all give the same group.

    >>> spread([0, 1] * 6, [0] * 6 + [1] * 6, 4)
    [2, 6, 5, 9]
    """
    ordered = np.lexsort([np.arange(len(groups)), np.asarray(groups), np.asarray(classes)])
    starts = np.arange(count + 1) * len(ordered) // count
    points = starts[:-1] + ((0.5 + np.arange(count) * GOLDEN) % 1 * np.diff(starts)).astype(np.int64)
    return ordered[points].tolist()


def first_of(sizes: Sequence[int], samples: int) -> int:
    """How many of the first batches it takes to have so many samples.

    >>> first_of([4, 8, 8], 4), first_of([8, 8], 9), first_of([8, 8], 99)
    (1, 2, 2)
    """
    return min(int(np.searchsorted(np.cumsum(sizes), samples)) + 1, len(sizes))


def reordered_by_group(sizes: Sequence[int], groups: np.ndarray) -> list[np.ndarray]:
    """The same, with all batches of a group (see `joined_groups`) one after the other, groups permuted.

    >>> [places.tolist() for places in reordered_by_group([2, 1, 2], np.array([0, 0, 1, 0, 0]))]
    [[2], [0, 1], [3, 4]]
    """
    places = np.split(np.arange(sum(sizes), dtype=np.int64), np.cumsum(sizes)[:-1])
    turn = _turns(groups)
    return sorted(places, key=lambda batch: int(turn[batch[0]]))


def joined_groups(sizes: Sequence[int], groups: np.ndarray) -> np.ndarray:
    """Groups (N,) of ready-made batches, numbered as they first appear: what shares a batch, or a group, is one.

    >>> joined_groups([2, 2, 1], np.array([0, 1, 2, 3, 2])).tolist()
    [0, 0, 1, 1, 1]
    """
    batch = np.repeat(np.arange(len(sizes)), sizes)
    joined = groups
    while True:
        least = _least(_least(joined, batch), groups)
        if np.array_equal(least, joined):
            return np.unique(joined, return_inverse=True)[1].astype(np.int64)
        joined = least


def _least(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The least of the values (N,) in each one's part."""
    least = np.full(int(parts.max()) + 1, values.max())
    np.minimum.at(least, parts, values)
    return least[parts]


def in_data_order(parts: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of batches (n, …), whose samples have the given places (n,), as one array (N, …) in the data's order.

    >>> in_data_order([np.array([20, 0]), np.array([10])], [np.array([2, 0]), np.array([1])]).tolist()
    [0, 10, 20]
    """
    rows = np.concatenate(parts)
    ordered = np.empty_like(rows)
    ordered[np.concatenate(places)] = rows
    return ordered
