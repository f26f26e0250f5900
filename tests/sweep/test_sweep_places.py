"""Splits by block, depth and expression, runs of blocks, and quantised weights: what each cell takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import diff
from ckptswap.dtypes import to_numpy
from ckptswap.errors import SelectionError, UsageError
from ckptswap.records import from_json, to_json
from ckptswap.report.charts import Heat, depth, heat, is_empty, overview, scatter, triangle
from ckptswap.report.diff import diff_csv, diff_json, diff_table
from ckptswap.report.rows import sections
from ckptswap.report.screen import sweep_summary, sweep_whole
from ckptswap.report.sweep import sweep_csv, sweep_json, sweep_md
from ckptswap.report.text import Style
from ckptswap.selection import REST, Selection
from ckptswap.sweep.plan import Cell, Plan, make_plan
from ckptswap.sweep.result import DonorScore, Row, SweepResult
from ckptswap.sweep.spec import SweepSpec, ways_of
from ckptswap.transplant import plan_transplant

ROOT = Path(__file__).parents[2]
BLOCKS = 4
PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{at}.{part}.weight" for at in range(BLOCKS) for part in PARTS),
    *(f"model.layers.{at}.input_layernorm.weight" for at in range(BLOCKS)),
    "model.norm.weight",
    "lm_head.weight",
]
ORDER = list(dict.fromkeys(name.rpartition(".")[0] for name in NAMES))


def checkpoint(seed: int) -> Checkpoint:
    rng = np.random.default_rng(seed)
    return Checkpoint.from_arrays(
        {name: rng.normal(size=(3,) if "norm" in name else (3, 3)).astype(np.float32) for name in NAMES}
    )


def planned(*by: tuple[str, ...], mode: str = "only") -> Plan:
    return make_plan(checkpoint(1), checkpoint(0), Selection(), by, mode=mode, order=ORDER)


def result(plan: Plan, mode: str = "only") -> SweepResult:
    """A table in which each cell's drop is its number."""
    rows = [_row(cell, at) for at, cell in enumerate(plan.cells)]
    return SweepResult("accuracy", "max", 0.5, 0.9, None, 72, tuple(rows), mode=mode, layers=tuple(ORDER))


def _row(cell: Cell, at: int) -> Row:
    told: dict[str, Any] = {"score": 0.0, "drop": float(at), "samples": 72, "verdict": "sensitive"}
    row = Row(cell.layer, cell.kind, cell.names, cell.numel, "measured", at + 1, **told)
    return replace(row, block=cell.block, last_block=cell.last_block, by=cell.by)


@pytest.mark.parametrize(
    "by", [("block",), ("block", "kind"), ("depth:2",), ("kind", "depth:3"), ("re:layers.(.)",)]
)
def test_parts_are_disjoint_and_together_the_selection(by: tuple[str, ...]) -> None:
    parts = Selection().split(checkpoint(0), by)
    assert sorted(name for part in parts for name in part.names) == sorted(NAMES)
    assert len({(part.layer, part.block, part.kind) for part in parts}) == len(parts)


def test_by_block_what_is_in_none_goes_by_its_layer() -> None:
    cells = {(cell.block, cell.layer): len(cell.names) for cell in planned(("block",)).cells}
    blocks = {(f"model.layers.{at}", None): 5 for at in range(BLOCKS)}
    assert cells == blocks | {(None, "model.embed_tokens"): 1, (None, "model.norm"): 1, (None, "lm_head"): 1}


def test_by_depth_and_by_expression() -> None:
    assert {cell.layer for cell in planned(("depth:2",)).cells} == {
        "model.layers", "model.embed_tokens", "model.norm", "lm_head"}  # fmt: skip
    cells = planned((r"re:layers\.(\d+)\.(self_attn|mlp)",)).cells
    assert {cell.layer for cell in cells} == {f"{at} {way}" for at in range(4) for way in ("self_attn", "mlp")} | {
        REST
    }
    assert {cell.layer for cell in planned(("re:q_proj|o_proj",)).cells} == {"q_proj", "o_proj", REST}


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (("layer", "block"), "two tables"), (("depth:0",), "depth:2"), (("depth",), "use layer"),
        (("depth:x",), "depth:2"), (("block:1",), "use layer"), (("all", "block"), "stands alone"),
    ],
)  # fmt: skip
def test_ways_that_make_no_sense(by: tuple[str, ...], said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        Selection().split(checkpoint(0), by)


@pytest.mark.parametrize("pattern", ["(", "(a+)+$", ".*.*.*.*.*.*.*x"])
def test_an_expression_that_could_take_for_ever(pattern: str) -> None:
    with pytest.raises(UsageError, match="--by re:"):
        Selection().split(checkpoint(0), (f"re:{pattern}",))


def test_runs_of_blocks() -> None:
    plan = planned(("block",), mode="window:2")
    assert [(cell.block, cell.last_block) for cell in plan.cells] == [
        (f"model.layers.{at}", f"model.layers.{at + 1}") for at in range(3)]  # fmt: skip
    assert [cell.place for cell in plan.cells] == [f"model.layers.{at}…{at + 1}" for at in range(3)]
    assert set(plan.cells[1].names) == {name for name in NAMES if ".1." in name or ".2." in name}
    assert len(planned(("block",), mode="window:1:4").cells) == 4 + 3 + 2 + 1
    by_kind = planned(("block", "kind"), mode="window:3").cells
    assert {cell.kind for cell in by_kind} == {
        "attn.q.weight", "attn.o.weight", "mlp.up.weight", "mlp.down.weight", "norm.weight"}  # fmt: skip
    assert from_json(Plan, json.loads(json.dumps(to_json(plan)))) == plan


@pytest.mark.parametrize("by", [("block",), ("block", "kind")])
def test_a_block_that_is_left_out_stands_between_two_runs(by: tuple[str, ...]) -> None:
    left = Selection.parse(exclude=["model.layers.1.*"])
    cells = make_plan(checkpoint(1), checkpoint(0), left, [by], mode="window:2", order=ORDER).cells
    assert {(cell.block, cell.last_block) for cell in cells} == {("model.layers.2", "model.layers.3")}
    with pytest.raises(UsageError, match=r"window:3 is of more blocks than are selected in a row \(2\)"):
        make_plan(checkpoint(1), checkpoint(0), left, [by], mode="window:3", order=ORDER)


def test_runs_go_by_blocks_unless_something_else_is_said() -> None:
    assert SweepSpec(("a.pt",), "b.pt", mode="window:2").by == (("block",),)
    assert SweepSpec(("a.pt",), "b.pt").by == (("layer", "kind"),)
    said = SweepSpec(("a.pt",), "b.pt", mode="window:2", by=ways_of(("layer,kind",)))
    with pytest.raises(UsageError, match="takes runs of blocks"):
        planned(said.by[0], mode=said.mode)


@pytest.mark.parametrize(
    ("by", "mode"), [(("block",), "window:5"), (("layer",), "window:2"), (("kind",), "prefix")]
)
def test_runs_that_cannot_be(by: tuple[str, ...], mode: str) -> None:
    with pytest.raises(UsageError):
        planned(by, mode=mode)


def test_blocks_are_added_one_after_another() -> None:
    cells = planned(("block",), mode="prefix").cells
    assert [cell.place for cell in cells] == ["model.embed_tokens", *(f"model.layers.{at}" for at in range(4)),
                                              "model.norm", "lm_head"]  # fmt: skip
    assert set(cells[1].names) == {name for name in NAMES if ".layers.0." in name or "embed" in name}
    assert len(cells[-1].names) == len(NAMES)


def test_a_run_of_blocks_is_drawn_as_a_triangle() -> None:
    shown = triangle(result(planned(("block",), mode="window:1:4"), "window:1:4"))
    assert shown.rows == shown.columns == tuple(f"model.layers.{at}" for at in range(4))
    there = [[value is not None for value in row] for row in shown.values]
    assert there == [[first <= last for last in range(4)] for first in range(4)]


@pytest.mark.parametrize(
    ("by", "mode", "more", "drawn"),
    [
        ("block", "window:1:2", "draws the runs of blocks as a triangle", triangle),
        ("block", "prefix", "every row, and what was not measured", heat),
        ("block", "only", "the heatmap", heat),
    ],
)
def test_the_terminal_says_where_all_is_drawn(
    by: str, mode: str, more: str, drawn: Callable[[SweepResult], Heat]
) -> None:
    swept = result(planned((by,), mode=mode), mode)
    told = sweep_summary(swept, Style(160)).splitlines()[-1]
    assert told.startswith("--all: every row")
    assert more in told
    assert ("the heatmap" in told) == ("drop by" in sweep_whole(swept, Style(160)))
    assert overview(swept) == drawn(swept)


def test_the_runs_of_several_donors_are_drawn_in_the_page() -> None:
    """`plot` draws one donor."""
    swept = result(planned(("block",), mode="window:1:2"), "window:1:2")
    several = replace(swept, donors=(DonorScore("a", None), DonorScore("b", None)))
    assert "`ckptswap report --format html` draws the runs" in sweep_summary(several, Style(160))


def apart(swept: SweepResult) -> SweepResult:
    return replace(swept, rows=tuple(replace(row, rmse=0.1) for row in swept.rows))


@pytest.mark.parametrize("way", ["block", "layer"])
def test_whole_blocks_are_drawn_along_the_network(way: str) -> None:
    swept = apart(result(planned((way,))))
    (line,) = depth(swept).series
    assert line.name == "all kinds"
    assert list(line.x) == list(range(len(swept.rows)))
    assert sum(len(series.x) for series in scatter(swept).series) == len(swept.rows)


def test_parts_have_no_place_along_the_network() -> None:
    swept = apart(result(planned(("depth:2",))))
    assert is_empty(depth(swept))
    assert not is_empty(scatter(swept))


@pytest.mark.parametrize("pattern", ["nothing", "", "x{0}", "$"])
def test_an_expression_that_matches_no_name(pattern: str) -> None:
    with pytest.raises(SelectionError, match=r"--by re:.* matches no name in .*: write for example"):
        Selection().split(checkpoint(0), (f"re:{pattern}", "kind"))


def test_a_transformers_heatmap_goes_by_blocks() -> None:
    shown = heat(result(planned(("layer", "kind"))))
    assert shown.rows == (
        "model.embed_tokens",
        *(f"model.layers.{at}" for at in range(4)),
        "model.norm",
        "lm_head",
    )
    assert "by block and kind" in shown.title
    assert len(shown.columns) == 7


@pytest.mark.parametrize(
    ("by", "mode"),
    [(("block",), "only"), (("block", "kind"), "only"), (("depth:2",), "only"), (("block",), "window:2")],
)
def test_every_form_names_the_places(by: tuple[str, ...], mode: str) -> None:
    swept = result(planned(by, mode=mode), mode)
    document = sweep_json(swept)
    jsonschema.validate(document, json.loads((ROOT / "docs/schemas/sweep.schema.json").read_text()))
    assert ("last_block" in document["rows"][0]) == mode.startswith("window")
    name = "model.layers.1…2" if mode == "window:2" else "model.layers" if by == ("depth:2",) else "model.layers.1"
    for text in (sweep_md(swept), sweep_whole(swept, Style(160))):
        assert name in text
    assert sweep_csv(swept).startswith("rank,layer,block,")
    assert len(sections(swept.rows)) == 1


def test_a_diff_by_block() -> None:
    document = diff_json(diff(checkpoint(0), checkpoint(1)).grouped(("block",)))
    jsonschema.validate(document, json.loads((ROOT / "docs/schemas/diff.schema.json").read_text()))
    assert [row["block"] for row in document["rows"] if row["layer"] is None] == [
        f"model.layers.{at}" for at in range(4)]  # fmt: skip
    assert "model.layers.3" in diff_table(document, Style(100))
    assert "block" in diff_csv(document).splitlines()[0].split(",")


REAL = {
    "bitsandbytes 0.50.2, nf4": {
        "weight": ((4096, 1), "U8"), "weight.absmax": ((128,), "U8"), "weight.quant_map": ((16,), "F32"),
        "weight.nested_absmax": ((1,), "F32"), "weight.nested_quant_map": ((256,), "F32"),
        "weight.quant_state.bitsandbytes__nf4": ((168,), "U8")},
    "bitsandbytes 0.50.2, 8 bit": {
        "weight": ((64, 128), "I8"), "SCB": ((64,), "F32"), "weight_format": ((), "U8")},
    "torchao 0.18.0, int8": {"_weight_qdata": ((64, 128), "I8"), "_weight_scale": ((64, 1), "F32"),
                             "_weight_zero_point": ((64, 1), "I8")},
    "compressed-tensors 0.20.1, 4 bit": {
        "weight_packed": ((64, 16), "I32"), "weight_scale": ((64, 4), "F32"), "weight_shape": ((2,), "I64")},
    "optimum-quanto 0.2.7, qint8": {"weight._data": ((64, 128), "I8"), "weight._scale": ((64, 1), "F32"),
                                    "input_scale": ((), "F32"), "output_scale": ((), "F32")},
    "optimum-quanto 0.2.7, qint4": {
        "weight._data._data": ((32, 128), "U8"), "weight._scale": ((64, 1), "F32"),
        "weight._shift": ((64, 1), "F32"), "input_scale": ((), "F32"), "output_scale": ((), "F32")},
    "autoawq 0.2.7, gemm": {
        "qweight": ((128, 8), "I32"), "qzeros": ((4, 8), "I32"), "scales": ((4, 64), "F16")},
}  # fmt: skip
"""The parts of `nn.Linear(128, 64)`'s weight as these libraries themselves saved them, in groups of 32 or 64."""


@pytest.mark.parametrize("library", REAL)
def test_a_weight_that_a_library_quantised_is_one_cell_without_a_distance(library: str) -> None:
    def saved(seed: int) -> Checkpoint:
        draw = np.random.default_rng(seed)
        arrays = {f"2.{role}": draw.integers(0, 9, shape).astype(to_numpy(dtype))
                  for role, (shape, dtype) in REAL[library].items()}  # fmt: skip
        return Checkpoint.from_arrays({**arrays, "2.bias": draw.normal(size=64).astype(np.float32)})

    bias, weight = make_plan(saved(1), saved(0), Selection()).cells
    assert (weight.layer, weight.kind) == ("2", "linear.weight")
    assert set(weight.names) == {f"2.{role}" for role in REAL[library]}
    assert (weight.status, weight.rmse, weight.rel_l2) == ("measured", None, None), (
        "packed numbers have no distance"
    )
    assert weight.reason == "no distance: a quantised weight"
    assert bias.rmse is not None


PACKED = {"qweight": (4, 8), "qzeros": (1, 1), "scales": (1, 8), "g_idx": (32,)}
FORMS = {
    "gptq": PACKED,
    "awq": {name: shape for name, shape in PACKED.items() if name != "g_idx"},
    "bitsandbytes 4 bit": {"weight": (16, 1), "weight.absmax": (4,), "weight.quant_map": (16,),
                           "weight.quant_state.bitsandbytes__nf4": (80,)},
    "bitsandbytes 8 bit": {"weight": (8, 8), "SCB": (8,), "weight_format": ()},
    "compressed-tensors": {"weight_packed": (8, 1), "weight_scale": (8, 1), "weight_shape": (2,)},
    "fp8": {"weight": (8, 8), "weight_scale_inv": (1, 1)},
    "torchao": {"_weight_qdata": (8, 8), "_weight_scale": (8, 1), "_weight_zero_point": (8, 1)},
    "hqq": {"W_q": (8, 8), "scale": (8, 1), "zero": (8, 1)},
    "quanto": {"weight._data": (8, 8), "weight._scale": (8, 1)},
}  # fmt: skip


def quantised(form: str, value: int) -> Checkpoint:
    layer = "model.layers.0.self_attn.q_proj"
    arrays = {f"{layer}.{role}": np.full(shape, value, np.uint8) for role, shape in FORMS[form].items()}
    return Checkpoint.from_arrays({**arrays, f"{layer}.bias": np.full(8, value, np.float32)})


@pytest.mark.parametrize("form", FORMS)
def test_the_parts_of_a_quantised_weight_are_one_cell(form: str) -> None:
    donor, recipient = quantised(form, 1), quantised(form, 0)
    names = {name for name in recipient if not name.endswith("bias")}
    for by in (("layer", "kind"), ("tensor",)):
        cells = make_plan(donor, recipient, Selection(), [by]).cells
        assert sorted(len(cell.names) for cell in cells) == [1, len(names)], by
        assert {cell.kind for cell in cells} == {"attn.q.weight", "attn.q.bias"}
    one = Selection.exactly([min(names)])
    plan = plan_transplant(donor, recipient, one)
    assert {entry.name for entry in plan.taken} == names
    assert "parts of one quantised weight" in plan.warnings[0]
    assert "quantised weight" in str(recipient.ties)


def test_nothing_is_part_of_the_way_between_quantised_weights() -> None:
    donor, recipient = quantised("gptq", 2), quantised("gptq", 0)
    plan = plan_transplant(donor, recipient, alpha=0.5)
    assert [entry.name.rpartition(".")[2] for entry in plan.moved] == ["bias"]
    assert all((plan.variant.read(name) == (1 if name.endswith("bias") else 0)).all() for name in recipient)
    with pytest.raises(UsageError, match="--alpha"):
        make_plan(donor, recipient, Selection(), alphas=[0.5])
