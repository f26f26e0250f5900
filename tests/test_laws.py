"""The laws that hold everywhere because a variant is a checkpoint."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from unittest import mock

import numpy as np
import pytest
from core_samples import NAMES, contents, fitting_pairs, pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap import diff as module
from ckptswap.checkpoint import Checkpoint, overlay
from ckptswap.diff import diff
from ckptswap.errors import SelectionError
from ckptswap.selection import Selection
from ckptswap.ties import Ties
from ckptswap.transplant import plan_transplant

Arrays = dict[str, np.ndarray]
SWAPPED = {"only_a": "only_b", "only_b": "only_a"}

words = st.sampled_from(
    ["*", "**", "bn.*", "*.bias", "layer2", "layer2.0", "2:10", "bn.stats", "conv.weight", "x[*]"]
)
words = (
    words | st.sampled_from(NAMES).map(lambda name: f"={name}") | st.text("ab*?[!].:=\n ", min_size=1, max_size=6)
)
selections = st.builds(
    dict,
    only=st.lists(words, max_size=2), exclude=st.lists(words, max_size=2),
    layers=st.lists(words, max_size=2), kind=st.lists(words, max_size=2),
)  # fmt: skip


def parsed(flags: list[str]) -> Selection:
    values: dict[str, list[str]] = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        values.setdefault(flag.removeprefix("--"), []).append(value)
    return Selection.parse(**values)


def chosen_from(values: dict[str, list[str]]) -> Selection | None:
    try:
        return Selection.parse(**values)
    except SelectionError:
        return None


def parts(given: tuple[Arrays, Arrays], data: st.DataObject) -> tuple[Checkpoint, Checkpoint, list[str]]:
    recipient, donor = (Checkpoint.from_arrays(arrays) for arrays in given)
    return recipient, donor, data.draw(st.lists(st.sampled_from(list(recipient)), unique=True))


@given(pairs())
def test_an_empty_transplant_is_the_identity(given: tuple[Arrays, Arrays]) -> None:
    recipient, donor = (Checkpoint.from_arrays(arrays) for arrays in given)
    assert contents(overlay(recipient, donor, [])) == contents(recipient)


@given(fitting_pairs())
def test_a_full_transplant_over_equal_names_is_the_donor(given: tuple[Arrays, Arrays]) -> None:
    recipient, donor = (Checkpoint.from_arrays(arrays) for arrays in given)
    assert contents(overlay(recipient, donor, recipient)) == contents(donor)


@given(fitting_pairs(), st.data())
def test_transplanting_twice_changes_nothing_more(given: tuple[Arrays, Arrays], data: st.DataObject) -> None:
    recipient, donor, names = parts(given, data)
    once = overlay(recipient, donor, names)
    assert contents(overlay(once, donor, names)) == contents(once)


@given(fitting_pairs(), st.data())
def test_a_diff_names_exactly_the_selected_tensors_that_differed(
    given: tuple[Arrays, Arrays], data: st.DataObject
) -> None:
    recipient, donor, names = parts(given, data)
    found = diff(overlay(recipient, donor, names), recipient)
    before, after = given
    assert {row.name for row in found.rows if row.status != "identical"} == {
        name for name in names if before[name].tobytes() != after[name].tobytes()
    }


@given(fitting_pairs(), st.data(), st.floats(0.01, 0.99))
def test_a_blend_of_equal_bits_changes_nothing(
    given: tuple[Arrays, Arrays], data: st.DataObject, alpha: float
) -> None:
    recipient, donor, names = parts(given, data)
    found = diff(overlay(recipient, donor, names, alpha=alpha), recipient)
    before, after = given
    assert {row.name for row in found.rows if row.status != "identical"} <= {
        name for name in names if before[name].tobytes() != after[name].tobytes()
    }


@given(pairs(), selections, st.sampled_from([("layer",), ("kind",), ("layer", "kind"), ("tensor",)]))
def test_parts_are_disjoint_and_together_the_selection(
    given: tuple[Arrays, Arrays], values: dict[str, list[str]], by: tuple[str, ...]
) -> None:
    checkpoint, selection = Checkpoint.from_arrays(given[0]), chosen_from(values)
    if selection is None or not any(entry in selection for entry in checkpoint.values()):
        return
    names = [name for part in selection.split(checkpoint, by) for name in part.names]
    assert len(names) == len(set(names))
    assert set(names) == {entry.name for entry in selection.pick(checkpoint)}
    assert set(names) == {name for name, entry in checkpoint.items() if entry in selection}


@given(pairs(), st.sampled_from([("layer",), ("kind",), ("layer", "kind")]))
def test_a_part_has_one_layer_or_kind_and_no_other_part_has_it(
    given: tuple[Arrays, Arrays], by: tuple[str, ...]
) -> None:
    checkpoint = Checkpoint.from_arrays(given[0])
    split = Selection().split(checkpoint, by)
    assert len({(part.layer, part.kind) for part in split}) == len(split)
    for part in split:
        places = {tuple(getattr(checkpoint[name], way) for way in by) for name in part.names}
        assert places == {tuple(getattr(part, way) for way in by)}


@given(selections)
def test_a_selection_prints_as_flags_that_parse_to_itself(values: dict[str, list[str]]) -> None:
    selection = chosen_from(values)
    if selection is not None:
        assert parsed(selection.flags()) == selection
        assert parsed(shlex.split(str(selection))) == selection


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_exact_names_print_as_flags_that_take_exactly_them(names: list[str]) -> None:
    checkpoint = Checkpoint.from_arrays({name: np.zeros(1) for name in NAMES})
    again = parsed(shlex.split(str(Selection.exactly(names))))
    assert {entry.name for entry in again.pick(checkpoint)} == set(names)


@st.composite
def tied(draw: st.DrawFn) -> tuple[Ties, Arrays, Arrays]:
    """Names in groups of one tensor, and two files that hold the same values under all names of a group."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, unique=True))
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(draw(st.integers(0, 2)), []).append(name)
    sides = [
        {name: np.full(3, 10 * side + at) for at, group in groups.items() for name in group} for side in (0, 1)
    ]
    same = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    return Ties(same, same), sides[0], sides[1]


@given(tied(), selections, st.sampled_from([("layer",), ("kind",), ("layer", "kind"), ("tensor",), ("all",)]))
def test_tied_names_are_never_in_two_parts(
    given: tuple[Ties, Arrays, Arrays], values: dict[str, list[str]], by: tuple[str, ...]
) -> None:
    ties, checkpoint, selection = given[0], Checkpoint.from_arrays(given[1]).tied(given[0]), chosen_from(values)
    if selection is None or not any(entry in selection for entry in checkpoint.values()):
        return
    parts = selection.split(checkpoint, by)
    for group in ties.same:
        assert sum(not set(group).isdisjoint(part.names) for part in parts) <= 1
        assert sum(set(group) <= set(part.names) for part in parts) == any(
            checkpoint[name] in selection for name in group
        )
    names = [name for part in parts for name in part.names]
    assert len(names) == len(set(names))
    assert set(names) == {entry.name for entry in selection.pick(checkpoint)}


@given(tied(), selections)
def test_a_transplant_keeps_tied_names_equal(
    given: tuple[Ties, Arrays, Arrays], values: dict[str, list[str]]
) -> None:
    ties, ours, theirs = given
    recipient, selection = Checkpoint.from_arrays(ours).tied(ties), chosen_from(values)
    if selection is None or not any(entry in selection for entry in recipient.values()):
        return
    variant = plan_transplant(Checkpoint.from_arrays(theirs), recipient, selection).variant
    for group in ties.same:
        assert len({variant.read(name).tobytes() for name in group}) == 1
        taken = any(recipient[name] in selection for name in group)
        assert variant.read(group[0]).tobytes() == (theirs if taken else ours)[group[0]].tobytes()
    assert variant.ties == recipient.ties


@given(pairs())
def test_a_diff_is_symmetric(given: tuple[Arrays, Arrays]) -> None:
    a, b = (Checkpoint.from_arrays(arrays) for arrays in given)
    there, back = diff(a, b), diff(b, a)
    assert {row.name: SWAPPED.get(row.status, row.status) for row in there.rows} == {
        row.name: row.status for row in back.rows
    }
    for ours, theirs in zip(there.rows, back.rows, strict=True):
        if ours.distance and theirs.distance:
            assert ours.distance.changed == theirs.distance.changed
            assert ours.distance.max_abs == theirs.distance.max_abs
            assert ours.distance.rmse == theirs.distance.rmse
            assert (ours.distance.nan_a, ours.distance.inf_a) == (theirs.distance.nan_b, theirs.distance.inf_b)


@settings(max_examples=40)
@given(pairs())
def test_threads_change_no_bit_of_a_number(given: tuple[Arrays, Arrays]) -> None:
    a, b = (Checkpoint.from_arrays(arrays) for arrays in given)
    with mock.patch.object(module, "READ", 32), mock.patch.object(module, "BLOCK", 64):
        results = [
            [repr((row.name, row.status, row.distance and asdict(row.distance))) for row in found.rows]
            for found in (diff(a, b, threads=threads) for threads in (1, 2, 5))
        ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("alpha", [0, 1])
def test_the_ends_of_a_blend_are_the_two_themselves(alpha: int) -> None:
    ours, theirs = ({"w": np.array([np.nan, -0.0, 1e300])}, {"w": np.array([1.0, 0.0, np.inf])})
    mixed = overlay(Checkpoint.from_arrays(ours), Checkpoint.from_arrays(theirs), ["w"], alpha=alpha)
    assert mixed.read("w").tobytes() == (theirs if alpha else ours)["w"].tobytes()
