"""Groups of names, by where bytes lie and by what is merged from several sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.ties import Extent, Ties, extent_of, merged, ties_of

W = torch.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize(
    ("tensors", "same", "together"),
    [
        ({"a": W, "b": W}, [("a", "b")], [("a", "b")]),
        ({"a": W, "b": W.detach(), "c": torch.nn.Parameter(W)}, [("a", "b", "c")], [("a", "b", "c")]),
        ({"a": W, "b": W.clone()}, [], []),
        ({"a": W[:2], "b": W[2:]}, [], []),
        ({"fused": W, "q": W[:2], "k": W[2:]}, [], [("fused", "q", "k")]),
        ({"a": W, "b": W.t()}, [], [("a", "b")]),
        ({"a": W, "b": W.view(24)}, [], [("a", "b")]),
        ({"a": W[:1], "b": W[0]}, [], [("a", "b")]),
        ({"a": W, "b": W.view(torch.int32)}, [], [("a", "b")]),
        ({"a": W[:0], "b": W[:0]}, [], []),
        ({"a": W.to_sparse(), "b": W}, [], []),
        ({"a": W.to("meta"), "b": W.to("meta")}, [], []),
        ({"a": W[:, :1], "b": W[:, :1].expand(4, 6)}, [], [("a", "b")]),
        ({"z": W, "a": W}, [("z", "a")], [("z", "a")]),
        ({"q": W[:, :3], "k": W[:, 3:]}, [], []),
        ({"q": W[:, :4], "k": W[:, 3:]}, [], [("q", "k")]),
        ({"q": W[:, :3], "fused": W, "k": W[:, 3:]}, [], [("q", "fused", "k")]),
        ({"even": W.view(24)[::2], "odd": W.view(24)[1::2]}, [], []),
    ],
    ids=["the same", "other objects", "a copy", "halves", "views", "turned", "another shape", "one more dimension",
         "another dtype", "empty", "sparse", "meta", "expanded", "in the order of the model",
         "columns", "columns that meet", "columns of what is there too", "every other"],
)  # fmt: skip
def test_tensors_are_one_by_their_place_in_memory(tensors, same, together) -> None:
    found = ties_of(tensors)
    assert (list(found.same), list(found.together)) == (same, together)


@given(st.data())
def test_views_are_apart_only_where_they_share_no_element(data: st.DataObject) -> None:
    """Of two views by slices and turns, against numpy's own numbering of the elements."""
    numbers = np.arange(96).reshape(data.draw(st.sampled_from([(8, 12), (4, 2, 12), (96,), (2, 4, 3, 4)])))
    steps = st.builds(slice, st.integers(0, 3), st.integers(1, 12), st.integers(1, 3))
    views = []
    for _ in range(2):
        at = tuple(data.draw(st.lists(steps, min_size=numbers.ndim, max_size=numbers.ndim)))
        part = numbers[at]
        views.append((part.T if data.draw(st.booleans()) else part, at))
    tensors = {name: torch.from_numpy(view) for name, (view, _) in zip("ab", views, strict=True)}
    if np.intersect1d(views[0][0], views[1][0]).size:
        assert ties_of(tensors).together == (("a", "b"),)


def test_groups_that_meet_become_one() -> None:
    model, file = Ties((("a", "b"),), (("a", "b"),)), Ties((("b", "c"),), (("b", "c"), ("x", "y")))
    both = model.joined(file)
    assert both.same == (("a", "b", "c"),)
    assert both.together == (("a", "b", "c"), ("x", "y"))
    assert both.twins("x") == ("x",)
    assert both.closed(["c", "x", "q"]) == ["a", "b", "c", "x", "y", "q"]
    assert both.once(["c", "q", "b", "x", "y"]) == ["c", "q", "x", "y"]
    assert both.among(["a", "c", "x"]).together == (("a", "c"),)
    assert both.renamed({"a": "A"}).same == (("A", "b", "c"),)
    assert both.unbroken(["a", "b"]).together == (("x", "y"),)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=3, unique=True), max_size=6))
def test_merging_is_the_closure(groups: list[list[str]]) -> None:
    found = merged(groups)
    names = [name for group in found for name in group]
    assert len(names) == len(set(names))
    place = {name: at for at, group in enumerate(found) for name in group}
    assert all(len({place[name] for name in group}) == 1 for group in groups)
    assert set(names) == {name for group in groups for name in group}


def test_a_line_says_how_many_and_names_the_first() -> None:
    many = tuple((f"a{at}", f"b{at}") for at in range(300))
    assert str(Ties(many, many)) == "300 tensors have several names (a0 = b0 and 299 more)"
    assert str(Ties((), (("fused", "q", "k"),))) == "some share part of their bytes (fused + q + k)"
    assert str(Ties((("a", "b", "c", "d"),), (("a", "b", "c", "d"),))) == (
        "1 tensor has several names (a = b = c = …)"
    )


def test_many_names_take_little_time() -> None:
    """Linear: a hostile file may hold 100,000 names of one storage, each within the next."""

    found = Ties.of({f"n{at}": Extent("s", 0, 4 + at % 50_000, at % 50_000) for at in range(100_000)})
    assert len(found.same) == 50_000
    assert [len(group) for group in found.joined(found).together] == [100_000]


def test_another_place_is_another_extent() -> None:
    assert extent_of(W) == extent_of(W.view(4, 6))
    assert extent_of(W) != extent_of(W.clone())
