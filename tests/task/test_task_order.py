from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.statistics.sequential import looks_of
from ckptswap.task.order import (
    batches_by_group,
    batches_of,
    first_of,
    in_data_order,
    joined_groups,
    permutation,
    reordered,
    reordered_by_group,
    spread,
)


def test_the_permutation_is_this_one_for_ever() -> None:
    assert permutation(12).tolist() == [8, 10, 2, 5, 1, 0, 7, 4, 9, 6, 3, 11]
    assert permutation(12).dtype == np.int64


@given(st.integers(1, 300))
def test_a_permutation_has_each_number_once(count: int) -> None:
    assert sorted(permutation(count).tolist()) == list(range(count))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(1, 9))
def test_batches_are_a_partition_of_one_kind_each_with_as_few_as_can_be(kinds: list[str], size: int) -> None:
    batches = batches_of(kinds, size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(kinds)))
    assert all(len({kinds[place] for place in places}) == 1 and len(places) <= size for places in batches)
    assert len(batches) == sum(-(-count // size) for count in Counter(kinds).values())
    assert sum(len(places) < size for places in batches) <= len(set(kinds))


@given(st.integers(1, 60), st.integers(1, 9))
def test_batches_of_one_kind_cut_the_permutation(count: int, size: int) -> None:
    assert np.concatenate(batches_of("a" * count, size)).tolist() == permutation(count).tolist()
    assert all(len(places) == size for places in batches_of("a" * count, size)[:-1])


def test_no_kind_comes_sooner_than_another() -> None:
    """A rare kind fills one small batch; ordered by its first or its last member it would stand at one end."""
    places = []
    for count in range(100, 300):
        kinds = ["rare" if at % 25 == 0 else "common" for at in range(count)]
        batches = batches_of(kinds, 8)
        places += [at / len(batches) for at, each in enumerate(batches) if kinds[each[0]] == "rare"]
    assert 0.4 < np.mean(places) < 0.6
    assert np.std(places) > 0.2


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40))
def test_ready_made_batches_keep_what_they_hold(sizes: list[int]) -> None:
    made = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    assert [places.tolist() for places in reordered(sizes)] == [
        made[at].tolist() for at in permutation(len(sizes))
    ]


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=40), st.integers(1, 9))
def test_what_is_told_by_batch_is_put_in_the_datas_order(kinds: list[str], size: int) -> None:
    batches = batches_of(kinds, size)
    rows = np.random.default_rng(0).normal(size=(len(kinds), 2))
    assert np.array_equal(in_data_order([rows[places] for places in batches], batches), rows)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60), st.data())
def test_samples_that_are_spread_share_out_classes_and_groups(pairs: list[tuple[int, int]], data) -> None:
    classes, groups = [a for a, _ in pairs], [b for _, b in pairs]
    count = data.draw(st.integers(1, len(pairs)))
    chosen = spread(classes, groups, count)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(range(len(pairs)))
    for label, size in Counter(classes).items():  # as many of a class as it is large, but for the edges' stretches
        assert abs(sum(classes[at] == label for at in chosen) - size * count / len(pairs)) < 2
    within = [group for label, group in pairs if label == 0]
    alone = spread([0] * len(within), within, min(count, len(within))) if within else []
    for group, size in Counter(within).items():
        assert abs(sum(within[at] == group for at in alone) - size * len(alone) / len(within)) < 2


def test_stretches_of_equal_form_do_not_all_give_one_group() -> None:
    """Four classes, each in the same ten groups."""
    classes, groups = [at // 10 for at in range(40)], [at % 10 for at in range(40)]
    assert len({groups[at] for at in spread(classes, groups, 4)}) == 4


@given(st.lists(st.sampled_from("ab"), min_size=2, max_size=40), st.integers(1, 9), st.data())
def test_what_comes_first_has_batches_of_its_own(kinds: list[str], size: int, data) -> None:
    first = data.draw(st.lists(st.sampled_from(range(len(kinds))), unique=True, max_size=len(kinds) - 1))
    batches = [places.tolist() for places in batches_of(kinds, size, first)]
    ahead = first_of(list(map(len, batches)), len(first)) if first else 0
    assert sorted(at for places in batches[:ahead] for at in places) == sorted(first)
    assert sorted(at for places in batches for at in places) == list(range(len(kinds)))
    assert all(len({kinds[at] for at in places}) == 1 and len(places) <= size for places in batches)
    if not first:
        assert batches == [places.tolist() for places in batches_of(kinds, size)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.data())
def test_of_ready_made_batches_those_that_hold_it_come_first(sizes: list[int], data) -> None:
    first = data.draw(st.lists(st.sampled_from(range(sum(sizes))), unique=True))
    batches = [places.tolist() for places in reordered(sizes, first)]
    assert sorted(map(tuple, batches)) == sorted(tuple(places.tolist()) for places in reordered(sizes))
    ahead = batches[: first_of(list(map(len, batches)), len(first))] if first else []
    assert all(set(places) & set(first) for places in ahead)
    assert sum(map(len, ahead[:-1])) < len(first) or not first


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from("ab")), min_size=1, max_size=80), st.integers(1, 9))
def test_a_walk_by_groups_keeps_each_together_and_is_cut_at_looks(
    samples: list[tuple[int, str]], size: int
) -> None:
    groups = np.unique([group for group, _ in samples], return_inverse=True)[1]
    kinds = [kind for _, kind in samples]
    batches = batches_by_group(kinds, groups, size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(samples)))
    assert all(len({kinds[place] for place in places}) == 1 and len(places) <= size for places in batches)
    whole = set()
    for end in range(1, len(batches) + 1):
        places = np.concatenate(batches[:end])
        seen = set(groups[places].tolist())
        if np.isin(groups, list(seen)).sum() == len(places):  # no group is left halfway
            whole.add(len(seen))
    assert set(looks_of(int(groups.max()) + 1)) <= whole


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.data())
def test_ready_made_batches_of_a_group_stay_together(sizes: list[int], data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.integers(0, 9), min_size=sum(sizes), max_size=sum(sizes)))
    groups = np.unique(drawn, return_inverse=True)[1]
    joined = joined_groups(sizes, groups)
    batch = np.repeat(np.arange(len(sizes)), sizes)
    for part in (batch, groups):
        assert all(len(set(joined[part == number].tolist())) == 1 for number in set(part.tolist()))
    pairs = {
        (a, b)
        for part in (batch, groups)
        for a in range(len(part))
        for b in range(len(part))
        if part[a] == part[b]
    }
    reached = {0}
    while more := {b for a, b in pairs if a in reached} - reached:
        reached |= more
    assert reached == set(np.flatnonzero(joined == joined[0]).tolist())
    order = joined[np.concatenate(reordered_by_group(sizes, joined))]
    assert (np.diff(order) != 0).sum() == len(set(joined.tolist())) - 1
