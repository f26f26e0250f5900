"""Differences between checkpoints, against a plain implementation over Python's own numbers."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from core_samples import FLOATS, NUMPY, changed_bits, packed, pairs, plain_values, random_bits, write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap import diff as module
from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.diff import STATUSES, Diff, TensorDiff, diff
from ckptswap.errors import SelectionError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.moments import Distance
from ckptswap.selection import Selection

Arrays = dict[str, np.ndarray]


def one(a: np.ndarray, b: np.ndarray) -> TensorDiff:
    """The row of a diff of one tensor."""
    return diff(Checkpoint.from_arrays({"w": a}), Checkpoint.from_arrays({"w": b})).rows[0]


def measured(a: np.ndarray, b: np.ndarray) -> Distance:
    distance = one(a, b).distance
    assert distance is not None
    return distance


def numbers(array: np.ndarray) -> list:
    """Python's own numbers: exact integers, doubles, or complex ones."""
    flat = array.reshape(-1)
    if array.dtype.kind in "iub" and array.dtype.name[:5] != "float":
        return [int(value) for value in flat]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flat.astype(np.complex128 if array.dtype.kind == "c" else np.float64).tolist()


def is_finite(value: complex) -> bool:
    return math.isfinite(complex(value).real) and math.isfinite(complex(value).imag)


def is_nan(value: complex) -> bool:
    return math.isnan(complex(value).real) or math.isnan(complex(value).imag)


def plain(a: np.ndarray, b: np.ndarray) -> dict[str, float | int | None]:
    """Every number of a diff, the slow and obvious way."""
    width = a.dtype.itemsize
    whole = a.tobytes(), b.tobytes()
    raw = [[side[at : at + width] for at in range(0, a.nbytes, width)] for side in whole]
    left, right = numbers(a), numbers(b)
    both = [(x, y) for x, y in zip(left, right, strict=True) if is_finite(x) and is_finite(y)]
    gaps = [abs(y - x) for x, y in both]
    square, norm_a, norm_b = (
        math.fsum(float(each) ** 2 for each in values)
        for values in (gaps, [abs(x) for x, _ in both], [abs(y) for _, y in both])
    )
    product = math.fsum(float((complex(x).conjugate() * complex(y)).real) for x, y in both)
    return {
        "changed": sum(x != y for x, y in zip(*raw, strict=True)),
        "count": len(both),
        "rmse": math.sqrt(square / len(both)) if both else None,
        "mean_abs": math.fsum(map(float, gaps)) / len(both) if both else None,
        "max_abs": max(gaps) if both else None,
        "rel_l2": math.sqrt(square / norm_a) if norm_a else None,
        "cosine": product / math.sqrt(norm_a) / math.sqrt(norm_b) if norm_a and norm_b else None,
        "nan_a": sum(map(is_nan, left)),
        "nan_b": sum(map(is_nan, right)),
        "inf_a": sum(not is_finite(x) and not is_nan(x) for x in left),
        "inf_b": sum(not is_finite(y) and not is_nan(y) for y in right),
        "flips": sum(
            isinstance(x, int | float) and (x < 0 < y or y < 0 < x) for x, y in zip(left, right, strict=True)
        ),
    }


def agrees(found: Distance, expected: dict[str, float | int | None]) -> None:
    for name, value in expected.items():
        ours = getattr(found, name)
        if isinstance(value, int) or value is None:
            assert ours == value, name
        else:
            assert ours == pytest.approx(value, rel=1e-9, abs=1e-9 if name == "cosine" else 0), name


@pytest.mark.parametrize("dtype", NUMPY)
@settings(max_examples=25)
@given(
    st.sampled_from([plain_values, random_bits]), st.integers(0, 400), st.integers(0, 400), st.integers(0, 9999),
    st.sampled_from(["some", "all"]),
)  # fmt: skip
def test_every_number_is_what_plain_arithmetic_gives(
    dtype: str, make, size: int, read: int, seed: int, how: str
) -> None:
    make = plain_values if NUMPY[dtype].itemsize >= 8 and dtype in FLOATS else make
    a = make(dtype, (size,), seed)
    b = (
        make(dtype, (size,), seed + 1)
        if how == "all"
        else np.where(np.arange(size) % 7 == 3, make(dtype, (size,), 3), a)
    )
    with mock.patch.object(module, "READ", 16 * (1 + read)), mock.patch.object(module, "BLOCK", 48 * (1 + read)):
        row = one(a, b)
    expected = plain(a, b)
    assert row.status == ("changed" if expected["changed"] else "identical")
    assert row.distance is not None
    agrees(row.distance, expected)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "I64"])
def test_large_tensors_in_their_real_chunks(dtype: str) -> None:
    a = plain_values(dtype, (module.READ // NUMPY[dtype].itemsize + 1003,), 1)
    b = np.where(np.arange(a.size) > a.size // 2, plain_values(dtype, (a.size,), 2), a)
    agrees(measured(a, b), plain(a, b))


@given(pairs())
def test_structure_is_what_the_arrays_have(given: tuple[Arrays, Arrays]) -> None:
    a, b = given
    found = diff(*(Checkpoint.from_arrays(arrays) for arrays in given))
    assert sorted(row.name or "" for row in found.rows) == sorted({*a, *b})
    assert sum(found.summary.values()) == len(found.rows)
    assert set(found.summary) == set(STATUSES)
    assert (found.a.tensors, found.a.bytes) == (len(a), sum(each.nbytes for each in a.values()))
    for row in found.rows:
        ours, theirs = a.get(row.name or ""), b.get(row.name or "")
        if ours is None or theirs is None:
            assert row.status == ("only_b" if ours is None else "only_a")
        elif ours.shape != theirs.shape:
            assert row.status == "shape"
        elif ours.dtype != theirs.dtype:
            assert row.status == "dtype"
        else:
            assert row.status == ("identical" if ours.tobytes() == theirs.tobytes() else "changed")
        are_floats = row.status == "dtype" and {ours.dtype.kind, theirs.dtype.kind} <= {"f", "V"}  # V: bfloat16
        assert (row.distance is None) == (row.status not in ("identical", "changed") and not are_floats)


def test_integers_beyond_two_to_the_53() -> None:
    found = measured(np.array([2**53, -(2**63), 5], "i8"), np.array([2**53 + 1, 2**63 - 1, 5], "i8"))
    assert (found.changed, found.max_abs, found.flips) == (2, 2**64 - 1, 1)
    assert measured(np.array([2**53], "i8"), np.array([2**53 + 1], "i8")).rmse == 1.0
    assert measured(np.array([2**64 - 1], "u8"), np.array([0], "u8")).max_abs == 2**64 - 1


def test_the_zeros_differ_in_bits_only() -> None:
    found = measured(np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    assert (found.changed, found.rmse, found.max_abs, found.flips, found.cosine) == (1, 0.0, 0.0, 0, 1.0)


def test_the_same_nan_is_equal_and_another_is_not() -> None:
    quiet, other = (np.array([bits, 0x3F800000], "u4").view("f4") for bits in (0x7FC00000, 0xFFC00001))
    assert (one(quiet, quiet).status, measured(quiet, quiet).nan_a) == ("identical", 1)
    found = measured(quiet, other)
    assert (found.changed, found.nan_a, found.nan_b, found.count, found.rmse) == (1, 1, 1, 1, 0.0)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "C64", "C128", "F8_E4M3"])
def test_a_chunk_of_nothing_finite_poisons_no_number(dtype: str) -> None:
    a = np.concatenate([np.full(64, np.nan), np.full(64, 2.0)]).astype(NUMPY[dtype])
    b = np.concatenate([np.full(64, np.nan), np.full(64, 3.0)]).astype(NUMPY[dtype])
    with mock.patch.object(module, "READ", 64 * a.itemsize):
        found = measured(a, b)
    assert (found.count, found.rmse, found.max_abs, found.rel_l2, found.nan_b) == (64, 1.0, 1.0, 0.5, 64)
    assert found.cosine == pytest.approx(1)


def test_a_distance_over_nothing_is_none() -> None:
    for a in (np.array([np.nan]), np.zeros((0, 3)), np.array([np.inf, -np.inf])):
        for b in (a, a.copy()):
            found = measured(a, b)
            assert [found.rmse, found.mean_abs, found.max_abs, found.rel_l2, found.cosine] == [None] * 5


def test_relative_to_zeros_is_none() -> None:
    found = measured(np.zeros(3), np.ones(3))
    assert (found.rmse, found.rel_l2, found.cosine) == (1.0, None, None)
    assert measured(np.ones(3), np.zeros(3)).rel_l2 == 1.0


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_squares_that_double_precision_cannot_hold_give_no_number(scale: float) -> None:
    found = measured(np.array([1.0, 2.0]) * scale, np.array([1.0, 3.0]) * scale)
    assert found.max_abs == pytest.approx(scale)
    assert (found.changed, found.rmse, found.rel_l2, found.cosine) == (1, None, None, None)
    mixed = measured(np.array([1e200, 1.0]), np.array([1e200, 2.0]))
    assert (mixed.rel_l2, mixed.cosine) == (None, None)


@pytest.mark.parametrize("order", [("F64", "C64"), ("C64", "F64")])
def test_reals_and_complex_values_of_one_width_follow_one_another(order: tuple[str, str]) -> None:
    """On one thread, and so in the same buffers."""
    a, b = (
        Checkpoint.from_arrays({f"{at}": plain_values(dtype, (5,), seed) for at, dtype in enumerate(order)})
        for seed in (1, 2)
    )
    together = diff(a, b, threads=1).rows
    alone = [diff(a, b, Selection.exactly([name]), threads=1).rows[0] for name in a]
    assert list(together) == alone


def test_scalars_and_bools() -> None:
    found = measured(np.array(True), np.array(False))
    assert (found.changed, found.max_abs, found.rmse) == (1, 1, 1.0)


@pytest.mark.parametrize(("dtype", "shape"), [("F4", (8,)), ("F6_E2M3", (4,))])
def test_packed_tensors_are_compared_as_bytes_and_have_no_numbers(dtype: str, shape: tuple[int]) -> None:
    size = 4 if dtype == "F4" else 3
    a, b = packed("w", dtype, shape, b"\1" * size), packed("w", dtype, shape, b"\2" * size)
    assert (diff(a, b).rows[0].status, diff(a, b).rows[0].distance) == ("changed", None)
    assert (diff(a, a).rows[0].status, diff(a, a).rows[0].changed) == ("identical", 0)
    assert diff(a, b).grouped(["kind"]).rows[0].distance is None


def test_a_tensor_without_a_name_is_compared() -> None:
    a, b = (Checkpoint.from_arrays({"": np.full(2, value), "v": np.ones(1)}) for value in (0.0, 1.0))
    assert [(row.name, row.status) for row in diff(a, b).rows] == [("", "changed"), ("v", "identical")]


def test_a_tensor_selected_on_one_side_is_compared_with_its_namesake() -> None:
    weight = {"n.weight": np.ones(2)}
    a, b = Checkpoint.from_arrays(weight | {"n.running_mean": np.ones(2)}), Checkpoint.from_arrays(weight)
    for left, right in ((a, b), (b, a)):
        found = diff(left, right, Selection.parse(kind=["bn.weight"]))
        assert [(row.name, row.status) for row in found.rows] == [("n.weight", "identical")]
        assert (found.a.tensors, found.b.tensors) == (1, 1)


def test_headers_only() -> None:
    class Unreadable:
        def read_into(self, buffer: memoryview, offset: int) -> None:
            raise AssertionError("values were read")

    a = Checkpoint([Tensor("w", (3,), "F32", Unreadable())], path="a", format="test")
    found = diff(a, a, values=False)
    assert (found.rows[0].status, found.rows[0].changed, found.differs) == ("unread", None, True)


def test_a_selection_that_matches_neither_side_is_refused() -> None:
    a = Checkpoint.from_arrays({"conv.weight": np.ones((1, 1, 1, 1))})
    with pytest.raises(SelectionError, match=r"did you mean 'conv\.weight'"):
        diff(a, a, Selection.parse(kind=["conv.wieght"]))
    with pytest.raises(SelectionError, match="holds no tensors"):
        diff(Checkpoint.from_arrays({}), Checkpoint.from_arrays({}))


def test_an_empty_side_is_a_side() -> None:
    a = Checkpoint.from_arrays({"w": np.ones(2)})
    assert diff(a, Checkpoint.from_arrays({})).summary["only_a"] == 1


@given(pairs(), st.sampled_from([("layer",), ("kind",), ("layer", "kind")]))
def test_groups_pool_what_their_members_hold(given: tuple[Arrays, Arrays], by: tuple[str, ...]) -> None:
    found = diff(*(Checkpoint.from_arrays(arrays) for arrays in given))
    groups = found.grouped(by).rows
    assert sum(group.tensors for group in groups) == len(found.rows)
    for group in groups:
        members = [row for row in found.rows if row.status == group.status
                   and all(getattr(row, way) == getattr(group, way) for way in by)]  # fmt: skip
        assert (group.name, group.tensors) == (None, len(members))
        assert group.numel == sum(row.numel for row in members)
        distances = [row.distance for row in members if row.distance]
        if distances:
            assert group.changed == sum(each.changed for each in distances)
            most = [each.max_abs for each in distances if each.max_abs is not None]
            assert group.distance is not None
            assert group.distance.max_abs == (max(most) if most else None)


def test_a_group_is_as_far_apart_as_its_members_laid_end_to_end() -> None:
    ours = {f"c{at}.weight": plain_values("F32", (5, 1, 3), at) for at in range(4)}
    theirs = {name: changed_bits(array, 9) for name, array in ours.items()}
    group = diff(Checkpoint.from_arrays(ours), Checkpoint.from_arrays(theirs)).grouped(["kind"]).rows
    assert [(row.kind, row.tensors, row.status) for row in group] == [("conv.weight", 4, "changed")]
    a, b = (np.concatenate([array.reshape(-1) for array in side.values()]) for side in (ours, theirs))
    assert group[0].distance is not None
    agrees(group[0].distance, plain(a, b))


@pytest.mark.parametrize("by", [[], ["name"], ["layer", "dtype"]])
def test_groups_of_what_there_is_not(by: list[str]) -> None:
    a = Checkpoint.from_arrays({"w": np.ones(1)})
    with pytest.raises(SelectionError, match="cannot group"):
        diff(a, a).grouped(by)


def test_rows_come_in_natural_order() -> None:
    a = Checkpoint.from_arrays({f"layer{at}.w": np.ones(1) for at in (10, 2, 1)})
    assert [row.name for row in diff(a, a).rows] == ["layer1.w", "layer2.w", "layer10.w"]


def test_sorting_puts_the_largest_first_and_what_has_no_number_last() -> None:
    values = {"small": 1.5, "none": None, "large": 9.0, "endless": math.inf, "big": 2**80}
    rows = tuple(
        TensorDiff(name, "", "", "changed", None, None, None, None, 1,
                   None if value is None else Distance(count=1, largest=value))
        for name, value in values.items()
    )  # fmt: skip
    base = diff(*[Checkpoint.from_arrays({"w": np.ones(1)})] * 2)
    found = replace(base, rows=rows)
    assert [row.name for row in found.sorted("max_abs").rows] == ["endless", "big", "large", "small", "none"]
    assert [row.name for row in found.sorted("max_abs", top=2).rows] == ["endless", "big"]
    assert isinstance(found, Diff)
    assert found.sorted() == found
    with pytest.raises(UsageError, match="cannot sort by 'size'"):
        found.sorted("size")


def test_progress_ends_at_all_the_bytes() -> None:
    a = Checkpoint.from_arrays({"w": np.ones(1000), "v": np.ones(10), "only": np.ones(5)})
    b = Checkpoint.from_arrays({"w": np.ones(1000), "v": np.zeros(10)})
    said: list[tuple[int, int]] = []
    with mock.patch.object(module, "BLOCK", 1024):
        diff(a, b, progress=lambda *seen: said.append(seen))
    assert said == sorted(said)
    assert said[-1] == (8080, 8080)


def test_an_interrupt_leaves_no_thread_behind() -> None:
    a = Checkpoint.from_arrays({f"w{at}": np.ones(10) for at in range(200)})
    before = threading.active_count()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diff(a, a, threads=4, progress=interrupt)
    assert threading.active_count() == before


def test_a_fault_while_reading_reaches_the_caller() -> None:
    class Torn:
        def read_into(self, buffer: memoryview, offset: int) -> None:
            raise UsageError("torn")

    a = Checkpoint([Tensor("w", (3,), "F32", Torn())], path="a", format="test")
    with pytest.raises(UsageError, match="torn"):
        diff(a, a)


def test_what_a_thread_is_about_to_read_is_asked_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block of both files; nothing for so little that it comes at once."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("os.posix_fadvise", lambda fd, start, size, advice: told.append((start, size)))
    arrays = {"w": np.zeros(1000, np.float32)}
    a, b = (write_safetensors(tmp_path / f"{name}.safetensors", arrays) for name in "ab")
    with open_checkpoint(a) as ours, open_checkpoint(b) as theirs:
        diff(ours, theirs)
        assert told == []
        monkeypatch.setattr("ckptswap.storage._WORTH_SAYING", 1)
        monkeypatch.setattr("ckptswap.diff.BLOCK", 3000)
        diff(ours, theirs)
    begin = a.stat().st_size - 4000
    assert sorted(told) == [(begin, 3000)] * 2 + [(begin + 3000, 1000)] * 2
