from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.errors import DataError, UsageError
from ckptswap.statistics import Drawn
from ckptswap.task import TaskSpec
from ckptswap.task.data import load_data
from ckptswap.task.data.draw import drawn_of, strata_of
from ckptswap.task.limit import Limit
from ckptswap.task.order import drawing_order, permutation

DATA = """
import torch
def samples(): return [(torch.full((1, 2, 2), at), torch.tensor(int(at >= 90)), at // 10) for at in range(100)]
def batches():
    while True: yield torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
class Faulty(list):
    @property
    def targets(self): raise ValueError("no file")
def faulty(): return Faulty(samples())
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(DATA)
    return str(tmp_path / "own.py")


@pytest.mark.parametrize(
    "value", [0, -3, 1.5, True, "", "many", "0", "first:", "first:0", "first:x", "last:3", [3]]
)
def test_what_is_no_limit_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="1 or more, to draw them at random; or first:N"):
        Limit.of(value)


def test_the_key_says_seed_or_first() -> None:
    assert TaskSpec().as_dict()["limit"] is None
    assert TaskSpec().merge({"limit": "8"}).as_dict()["limit"] == "8 at random, seed 3411"
    assert TaskSpec().merge({"limit": "first:8"}).as_dict()["limit"] == "first:8"


def test_without_strata_the_order_is_the_permutation() -> None:
    assert drawing_order(12).tolist() == permutation(12).tolist()
    assert drawing_order(6, "aabbbb").tolist() == [1, 2, 5, 0, 4, 3], "this one for ever"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.data())
def test_each_first_part_has_of_each_stratum_its_share(strata: list[int], data: st.DataObject) -> None:
    order = drawing_order(len(strata), strata).tolist()
    assert sorted(order) == list(range(len(strata)))
    some = data.draw(st.integers(0, len(strata)))
    drawn, sizes = Counter(strata[at] for at in order[:some]), Counter(strata)
    assert all(abs(drawn[own] - size * some / len(strata)) < len(sizes) + 1 for own, size in sizes.items())


def test_groups_are_spread_within_classes() -> None:
    classes, groups = np.repeat([0, 1], [30, 10]), np.arange(40) // 2
    drawn = drawing_order(40, classes.tolist(), groups.tolist())[:12]
    assert np.bincount(classes[drawn]).tolist() == [9, 3]
    assert len(set(groups[drawn].tolist())) == 12


def test_what_is_known_of_samples_before_they_are_read() -> None:
    class Told:
        targets, groups = torch.tensor([0, 1, 1]), np.array(["a", "b", "a"])

        def __len__(self) -> int:
            return 3

    class Paths(Told):
        targets, groups = ["1.png", "2.png", "2.png"], None

    assert strata_of(Told()) == {"class": [0, 1, 1], "group": ["a", "b", "a"]}
    assert strata_of(Paths()) == {}
    assert strata_of([(0, [1, 2], [3]), (0, 1), 7]) == {}
    assert strata_of([(0, 1, "a"), (0, 1, "a"), (0, 1, "b")]) == {"group": ["a", "a", "b"]}


@pytest.mark.parametrize("limit", [None, 3, 9, "first:3"])
def test_a_limit_that_leaves_nothing_out_draws_nothing(limit: int | str | None) -> None:
    assert drawn_of("abc", Limit.of(limit)) == (range(3), None)


def test_samples_are_drawn_evenly_and_keep_their_numbers(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:samples", limit=20, threads=1))
    assert data.drawn == Drawn(100, ("class", "group"), 3411)
    assert data.notes == (f"{own}:samples: 20 of 100 samples at random, evenly by class and group (seed 3411)",)
    numbers = [data.number(place) for place in range(20)]
    assert numbers == sorted(numbers)
    values = {
        place: int(one[0, 0, 0])
        for batch in data.batches()
        for place, one in zip(batch.places, batch.inputs, strict=True)
    }
    assert [values[place] for place in range(20)] == numbers
    assert Counter(number >= 90 for number in numbers) == {False: 18, True: 2}
    assert len(set(data.groups.tolist())) == 10
    more = load_data(TaskSpec(data=f"{own}:samples", limit=40, threads=1))
    assert set(numbers) < {more.number(place) for place in range(40)}, "fewer are among more"


def test_a_folder_a_class_gives_of_each_class(write_folder) -> None:
    grey = np.zeros((2, 2), np.uint8)
    files = {f"{name}/{at}.png": grey for name, count in (("cat", 30), ("dog", 10)) for at in range(count)}
    data = load_data(TaskSpec(data=str(write_folder(files)), limit=8, metrics=("accuracy",), threads=1))
    assert Counter(int(one) for batch in data.batches() for one in batch.targets) == {0: 6, 1: 2}
    assert data.drawn == Drawn(40, ("class",), 3411)


def test_batches_without_end_give_the_first_samples_and_say_so(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:batches", limit=10, threads=1))
    assert (data.samples, data.drawn) == (10, Drawn(None))
    [note] = data.notes
    assert "the first 10 samples: batches" in note
    assert "return a Dataset" in note
    assert load_data(TaskSpec(data=f"{own}:batches", limit="first:10", threads=1)).notes[0].endswith("10 samples")


def test_too_large_a_limit_and_a_faulty_data_set_are_said(own: str) -> None:
    assert "there are 100 samples" in load_data(TaskSpec(data=f"{own}:samples", limit=101, threads=1)).notes[0]
    with pytest.raises(DataError, match="no file"):
        load_data(TaskSpec(data=f"{own}:faulty", limit=8, threads=1))
