"""What a plan holds, against plain comparisons of whole arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError, SelectionError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.records import from_json, to_json
from ckptswap.selection import Selection
from ckptswap.sweep.plan import Cell, Plan, make_plan, variant_id

SHAPES = {
    "enc.2.conv.weight": (3, 2, 3, 3),
    "enc.2.conv.bias": (3,),
    "enc.2.bn.weight": (3,),
    "enc.2.bn.bias": (3,),
    "enc.2.bn.running_mean": (3,),
    "enc.2.bn.running_var": (3,),
    "enc.10.conv.weight": (1, 3, 1, 1),
    "enc.10.conv.bias": (1,),
}
WAYS = [("layer", "kind"), ("kind",), ("layer",), ("tensor",)]


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def pair(**changed: np.ndarray) -> tuple[Checkpoint, Checkpoint]:
    """Donor and recipient; `changed` replaces tensors of the donor (dots as __)."""
    donor = arrays(1) | {name.replace("__", "."): value for name, value in changed.items()}
    return Checkpoint.from_arrays(donor, path="a"), Checkpoint.from_arrays(arrays(0), path="b")


def found(plan: Plan) -> Mapping[tuple[str | None, str | None], Cell]:
    return {(cell.layer, cell.kind): cell for cell in plan.cells}


def test_natural_order() -> None:
    plan = make_plan(*pair(), Selection(), by=[("layer",), ("kind",)])
    assert [cell.layer for cell in plan.cells if cell.by == ("layer",)] == [
        "enc.2.bn", "enc.2.conv", "enc.10.conv",
    ]  # fmt: skip
    assert [cell.by for cell in plan.cells] == [("layer",)] * 3 + [("kind",)] * 6


def test_distances_are_those_of_the_whole_arrays() -> None:
    donor, recipient = pair()
    for cell in make_plan(donor, recipient, Selection(), WAYS).cells:
        a, b = (
            np.concatenate([c.read(name).astype(np.float64).ravel() for name in cell.names])
            for c in (donor, recipient)
        )
        assert cell.numel == len(a)
        assert cell.rmse == pytest.approx(float(np.sqrt(np.mean((a - b) ** 2))), rel=1e-12)
        assert cell.rel_l2 == pytest.approx(float(np.linalg.norm(a - b) / np.linalg.norm(b)), rel=1e-12)


def test_identical_is_bit_equality() -> None:
    same = arrays(0)
    minus_zero = np.array([-0.0, 0.0, 0.0], np.float32)
    donor, recipient = pair(enc__2__conv__bias=same["enc.2.conv.bias"], enc__2__bn__bias=minus_zero)
    cells = found(make_plan(donor, recipient, Selection()))
    assert cells["enc.2.conv", "conv.bias"].status == "identical"
    assert cells["enc.2.conv", "conv.bias"].rmse == 0.0
    assert cells["enc.2.bn", "bn.bias"].status == "measured"
    zeros = Checkpoint.from_arrays({"bn.bias": np.zeros(3, np.float32)})
    signed = Checkpoint.from_arrays({"bn.bias": minus_zero})
    (cell,) = make_plan(signed, zeros, Selection()).cells
    assert (cell.status, cell.rmse, cell.rel_l2) == ("measured", 0.0, None)


def test_equal_nans_are_identical_and_non_finite_elements_have_no_distance() -> None:
    values = np.array([1.0, np.nan, np.inf], np.float32)
    other = np.array([3.0, 2.0, np.inf], np.float32)
    (cell,) = make_plan(*(Checkpoint.from_arrays({"w": each}) for each in (values, values)), Selection()).cells
    assert cell.status == "identical"
    (cell,) = make_plan(*(Checkpoint.from_arrays({"w": each}) for each in (other, values)), Selection()).cells
    assert (cell.status, cell.rmse, cell.rel_l2, cell.numel) == ("measured", None, None, 3)
    assert cell.non_finite == "recipient 1 NaN, 1 Inf; donor 1 Inf"
    assert cell.reason == f"no distance: {cell.non_finite}"
    nothing = np.full(3, np.nan, np.float32)
    (cell,) = make_plan(*(Checkpoint.from_arrays({"w": each}) for each in (other, nothing)), Selection()).cells
    assert (cell.rmse, cell.rel_l2, cell.non_finite) == (None, None, "recipient 3 NaN; donor 1 Inf")


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int64, np.bool_, np.complex64],
)
def test_every_dtype_has_numbers(dtype: type) -> None:
    a, b = (np.array(values).astype(dtype) for values in ([1, 0, 1, 1], [1, 1, 0, 1]))
    (cell,) = make_plan(Checkpoint.from_arrays({"w": a}), Checkpoint.from_arrays({"w": b}), Selection()).cells
    assert (cell.status, cell.rmse) == ("measured", pytest.approx(np.sqrt(0.5)))
    assert cell.rel_l2 == pytest.approx(np.sqrt(2 / 3))


def test_a_tensor_of_many_chunks() -> None:
    a, b = (np.random.default_rng(seed).normal(size=300_000) for seed in (1, 2))
    (cell,) = make_plan(Checkpoint.from_arrays({"w": a}), Checkpoint.from_arrays({"w": b}), Selection()).cells
    assert cell.rmse == pytest.approx(float(np.sqrt(np.mean((a - b) ** 2))), rel=1e-12)
    c = a.copy()
    c[-1] = np.nextafter(c[-1], 9)
    (cell,) = make_plan(Checkpoint.from_arrays({"w": a}), Checkpoint.from_arrays({"w": c}), Selection()).cells
    assert cell.status == "measured"


def test_distances_are_as_exact_as_those_of_diff() -> None:
    """Integers beyond 2^53 are subtracted as integers; squares that vanish in double precision are no zero."""
    big = np.array([2**60, 2**60 + 1])
    (cell,) = make_plan(*(Checkpoint.from_arrays({"n": each}) for each in (big + 1, big)), Selection()).cells
    assert (cell.status, cell.rmse) == ("measured", 1.0)
    (cell,) = make_plan(
        *(Checkpoint.from_arrays({"w": np.array([w])}) for w in (2e-170, 1e-170)), Selection()
    ).cells
    assert (cell.status, cell.rmse, cell.rel_l2) == ("measured", None, None)


def test_equal_tensors_count_in_the_norm_of_their_cell() -> None:
    recipient = {"l.weight": np.full((9, 9), 3.0), "l.bias": np.full(9, 4.0)}
    donor = recipient | {"l.bias": np.full(9, 5.0)}
    (cell,) = make_plan(*map(Checkpoint.from_arrays, (donor, recipient)), Selection(), [("layer",)]).cells
    assert cell.rmse == pytest.approx(np.sqrt(9 / 90))
    assert cell.rel_l2 == pytest.approx(np.sqrt(9 / (81 * 9 + 9 * 16)))


def test_damage_that_a_checksum_tells_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(9.0)}), tmp_path / "a.npz")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(np.float64(3).tobytes(), np.float64(4).tobytes(), 1))
    with open_checkpoint(path) as damaged, pytest.raises(FormatError, match="CRC"):
        make_plan(damaged, damaged, Selection())


def test_mismatches_name_both_sides() -> None:
    donor = arrays(1)
    del donor["enc.2.conv.bias"]
    donor["enc.10.conv.weight"] = np.zeros((2, 3, 1, 1), np.float32)
    donor["enc.2.bn.weight"] = np.zeros(3, np.float64)
    recipient = Checkpoint.from_arrays(arrays(0))
    cells = found(make_plan(Checkpoint.from_arrays(donor), recipient, Selection(), WAYS[:2]))
    assert {key for key, cell in cells.items() if cell.status == "mismatch"} == {
        ("enc.2.conv", "conv.bias"), ("enc.10.conv", "conv.weight"), ("enc.2.bn", "bn.weight"),
        (None, "conv.bias"), (None, "conv.weight"), (None, "bn.weight"),
    }  # fmt: skip
    missing, shape, dtype = (
        cells[key].reason
        for key in (("enc.2.conv", "conv.bias"), ("enc.10.conv", "conv.weight"), ("enc.2.bn", "bn.weight"))
    )
    assert missing == "enc.2.conv.bias: missing in the donor, F32 [3] in the recipient"
    assert shape == "enc.10.conv.weight: F32 [2, 3, 1, 1] in the donor, F32 [1, 3, 1, 1] in the recipient"
    assert dtype == "enc.2.bn.weight: F64 [3] in the donor, F32 [3] in the recipient"
    assert cells[None, "conv.bias"].rmse is None


def test_cells_that_take_the_same_tensors_are_scored_once() -> None:
    plan = make_plan(*pair(), Selection(), WAYS)
    tensors = set(SHAPES)
    singles = {(name,) for name in tensors}
    assert len(plan.cells) == 8 + 6 + 3 + 8
    assert singles < {variant.names for variant in plan.variants()}
    assert len(plan.variants()) == len({frozenset(cell.names) for cell in plan.cells}) == 8 + 2 + 3


def test_the_same_way_twice_is_one_way() -> None:
    assert make_plan(*pair(), Selection(), [("kind",), ("kind",)]) == make_plan(*pair(), Selection(), [("kind",)])


def test_identical_and_mismatched_cells_cost_nothing() -> None:
    recipient = Checkpoint.from_arrays(arrays(0))
    assert make_plan(recipient, recipient, Selection()).variants() == []
    assert make_plan(Checkpoint.from_arrays({}), recipient, Selection()).variants() == []


def test_cells_that_are_never_read_need_no_run() -> None:
    """Only where none of a cell's tensors is read; what else is known of a cell stays."""
    donor, recipient = pair(
        enc__2__conv__weight=arrays(0)["enc.2.conv.weight"], enc__10__conv__bias=np.zeros(2, np.float32)
    )
    plan = make_plan(donor, recipient, Selection(), WAYS[:3])
    unread = {"enc.2.bn.weight", "enc.2.bn.bias", "enc.2.conv.weight", "enc.10.conv.bias", "no.such"}
    found, before = (
        {(cell.by, cell.layer, cell.kind): cell for cell in each.cells}
        for each in (plan.without_effect(unread), plan)
    )
    idle = {key for key, cell in found.items() if cell.status == "no-effect"}
    assert idle == {
        (WAYS[0], "enc.2.bn", "bn.weight"), (WAYS[0], "enc.2.bn", "bn.bias"),
        (WAYS[1], None, "bn.weight"), (WAYS[1], None, "bn.bias"),
    }  # fmt: skip
    for key, cell in found.items():
        assert replace(cell, status=before[key].status) == before[key]
    assert found[WAYS[0], "enc.2.conv", "conv.weight"].status == "identical"
    assert found[WAYS[0], "enc.10.conv", "conv.bias"].status == "mismatch"
    assert found[WAYS[2], "enc.2.bn", None].status == "measured", "its running statistics are read"


def test_variants_without_those_that_are_never_read() -> None:
    plan = make_plan(*pair(), Selection(), WAYS)
    unread = {"enc.2.bn.weight", "enc.2.bn.bias"}
    fewer = plan.without_effect(unread)
    gone = {variant.names for variant in set(plan.variants()) - set(fewer.variants())}
    assert gone == {("enc.2.bn.weight",), ("enc.2.bn.bias",)}
    assert plan.without_effect(()) == plan
    assert plan.without_effect(SHAPES).variants() == []
    assert fewer.without_effect(unread) == fewer
    assert from_json(Plan, json.loads(json.dumps(to_json(fewer)))) == fewer


def test_nothing_selected() -> None:
    with pytest.raises(SelectionError):
        make_plan(*pair(), Selection.parse(only=["encoder"]))


def test_json_round_trip() -> None:
    plan = make_plan(*pair(), Selection.parse(exclude=["*.bias"]), WAYS)
    assert from_json(Plan, json.loads(json.dumps(to_json(plan)))) == plan
    assert plan.selection == ("--exclude", "*.bias")


def test_variant_id_depends_on_the_set_of_names_only() -> None:
    assert variant_id(["b", "a"]) == variant_id(("a", "b"))
    assert len({variant_id(each) for each in (["a"], ["a", "b"], ["ab"], ["a,b"], [])}) == 5


NAMES = st.sampled_from([f"{layer}.{role}" for layer in ("a", "a.1", "b") for role in ("weight", "bias", "scale")])


@given(
    shared=st.dictionaries(NAMES, hnp.arrays(np.float32, st.integers(0, 3)), min_size=1),
    changed=st.sets(NAMES),
    gone=st.sets(NAMES),
    way=st.sampled_from(WAYS),
)
def test_parts_are_disjoint_and_cover_and_statuses_are_right(
    shared: dict[str, np.ndarray], changed: set[str], gone: set[str], way: tuple[str, ...]
) -> None:
    donor = {name: value + 1 if name in changed else value for name, value in shared.items() if name not in gone}
    with np.errstate(all="ignore"):
        differs = {name for name in donor if donor[name].tobytes() != shared[name].tobytes()}
    plan = make_plan(Checkpoint.from_arrays(donor), Checkpoint.from_arrays(shared), Selection(), [way])
    names = [name for cell in plan.cells for name in cell.names]
    assert sorted(names) == sorted(shared)
    for cell in plan.cells:
        if gone & set(cell.names):
            assert cell.status == "mismatch"
        else:
            assert cell.status == ("measured" if differs & set(cell.names) else "identical")
