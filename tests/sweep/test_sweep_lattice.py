"""Every set of a few parts, against a plain loop; what a set costs beyond its parts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sweeping import prepare, ran, sweep
from test_sweep_modes import READ, error_of, state_of, taken

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError, UsageError
from ckptswap.report.answer import answer
from ckptswap.report.charts import interactions, overview, pairs
from ckptswap.report.html import about, sweep_html
from ckptswap.report.plan import plan_json
from ckptswap.report.screen import render_sweep
from ckptswap.report.text import Style
from ckptswap.selection import Part, Selection
from ckptswap.statistics import intervals, totals
from ckptswap.sweep.analysis import load_result
from ckptswap.sweep.lattice import sets_of
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.select import select
from ckptswap.sweep.spec import SweepSpec
from ckptswap.task import TaskSpec

KINDS = ("bn.bias", "bn.weight", "conv.bias", "conv.weight")
SOME = Selection.parse(kind=KINDS, exclude=["unused.*"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def pair(save) -> tuple[Checkpoint, Checkpoint]:
    return save(1, "Skip"), save(0, "Skip")


@pytest.fixture
def lattice(skip: TaskSpec, pair, run: Path) -> SweepResult:
    return sweep(*pair, skip, selection=SOME, mode="lattice", by=[("kind",)], run_dir=run, tolerance=0.001)


def test_every_set_is_that_of_a_plain_loop(skip: TaskSpec, pair, lattice: SweepResult) -> None:
    donor, recipient = pair
    sets = [parts for size in range(1, 5) for parts in combinations(KINDS, size)]
    assert sorted(row.parts for row in lattice.rows) == sorted(sets)
    for row in lattice.rows:
        assert (row.kind, row.layer) == (" + ".join(row.parts), None)
        names = [entry.name for entry in recipient.values() if entry.kind in row.parts and entry in SOME]
        assert sorted(row.tensors) == sorted(names)
        score = error_of(skip, recipient, taken(recipient, donor, names))
        assert row.score == pytest.approx(score, rel=1e-6)


def test_an_interaction_is_what_a_set_has_beyond_its_parts(lattice: SweepResult, run: Path) -> None:
    """By scores, and its interval as that of one number a sample."""
    drops = {row.parts: row.drop for row in lattice.rows}
    plan, blocks = RunFolder(run).read()
    metric = plan.metrics[0].name

    def scores(variant: str) -> np.ndarray:
        values = np.empty((len(plan.groups), 1))
        for at, places in enumerate(plan.walk):
            values[list(places)] = blocks[variant, at].statistics[metric]
        return values

    by_parts = {cell.parts: scores(cell.variant) for cell in plan.plan.cells}
    baseline = scores("baseline")
    for row in lattice.rows:
        if len(row.parts) == 1:
            assert row.interaction is None
            continue
        alone = [(part,) for part in row.parts]
        assert row.interaction is not None
        beyond = row.drop - sum(drops[part] for part in alone)  # type: ignore[operator, misc]
        assert row.interaction.estimate == pytest.approx(beyond, abs=1e-12)
        extra = by_parts[row.parts] - sum(by_parts[part] for part in alone) + (len(alone) - 1) * baseline
        groups = np.array(plan.groups)
        expected = intervals.interval(extra, groups, totals.mean)
        assert row.interaction.low == pytest.approx(expected.low, rel=1e-6, abs=1e-12)
        assert row.interaction.high == pytest.approx(expected.high, rel=1e-6, abs=1e-12)


def test_kinds_are_what_is_taken_where_nothing_else_is_said() -> None:
    assert SweepSpec(("a.pt",), "b.pt", mode="lattice").by == (("kind",),)


@pytest.mark.parametrize("way", [("layer", "kind"), ("tensor",), ("all",)])
def test_ways_without_short_names_are_refused(skip: TaskSpec, pair, way: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"takes sets of parts, not of .*: use --by kind, layer"):
        prepare(*pair, skip, mode="lattice", by=[way])


def test_layers_and_parts_of_an_expression_make_sets_too(skip: TaskSpec, pair, run: Path) -> None:
    how = {"selection": READ, "mode": "lattice", "by": [("layer",), ("re:(bias|weight)",)]}
    planned = prepare(*pair, skip, run_dir=run, **how)
    sets = {cell.parts: cell.names for cell in planned.plan.cells}
    assert set(sets["head", "stem"]) == {name for name in pair[1] if name.startswith(("stem.", "head."))}
    assert set(sets["bias", "weight"]) == {
        name for name in pair[1] if name.endswith(("bias", "weight")) and not name.startswith("unused")
    }


def test_more_than_eight_parts_are_refused_with_what_to_do(skip: TaskSpec, pair) -> None:
    parts = [Part(f"l{at}", None, (f"l{at}.weight",)) for at in range(9)]
    with pytest.raises(UsageError, match=r"of 9 parts has 511 sets \(l0.*choose 8 parts at most, with --kind"):
        list(sets_of(parts))
    assert len(list(sets_of(parts[:8]))) == 255 - 8


def test_parts_that_change_nothing_are_in_no_set(skip: TaskSpec, save, run: Path) -> None:
    """Equal ones, counters, and what is never read."""
    same = {name.replace(".", "__"): value for name, value in state_of(save(0, "Skip")).items() if "bias" in name}
    donor, recipient = save(1, "Skip", **same), save(0, "Skip")
    planned = prepare(donor, recipient, skip, mode="lattice", run_dir=run)
    sets = [cell.parts for cell in planned.plan.cells if len(cell.parts) > 1]
    assert {part for parts in sets for part in parts}.isdisjoint(
        {"bn.bias", "conv.bias", "linear.bias", "linear.weight", "bn.num_batches_tracked"}
    )
    assert {cell.status for cell in planned.plan.cells if "bn.bias" in cell.parts} == {"identical"}
    cost = planned.scorer.cost(planned.variants)
    document = plan_json(planned.plan, "run", 20, cost)
    kinds = {part for parts in sets for part in parts}
    assert document["variants"] == 2 ** len(kinds) - 1


def test_two_donors_have_interactions_of_their_own(skip: TaskSpec, save, run: Path) -> None:
    two = Selection.parse(kind=["conv.bias", "bn.bias"], exclude=["unused.*"])
    how = {"selection": two, "mode": "lattice"}
    donors, recipient = [save(1, "Skip"), save(2, "Skip")], save(0, "Skip")
    both = sweep(donors, recipient, skip, run_dir=run, tolerance=0.001, **how)
    second = sweep(donors[1], recipient, skip, run_dir=run.with_name("second"), tolerance=0.001, **how)
    told = {(row.parts, row.donor): row.interaction for row in both.rows}
    assert {parts: of for (parts, donor), of in told.items() if donor} == {
        row.parts: row.interaction for row in second.rows
    }
    assert told[("bn.bias", "conv.bias"), 0] != told[("bn.bias", "conv.bias"), 1]


def test_unfinished_sets_have_none(skip: TaskSpec, pair, run: Path) -> None:
    planned = prepare(*pair, skip, selection=SOME, mode="lattice", run_dir=run)
    result = ran(planned, tolerance=0.001, budget=0.0)
    assert all(row.interaction is None for row in result.rows if len(row.parts) == 1)
    loaded = load_result(run)
    assert replace(loaded, notes=()) == replace(result, notes=())
    assert any("the budget of 0 s is used up" in note for note in loaded.notes), "a run remembers why it ended"


def test_select_wants_single_parts(lattice: SweepResult, run: Path) -> None:
    with pytest.raises(RunError, match="swaps with --mode lattice"):
        select(run)


# As it is shown -------------------------------------------------------------------------------------------------


def test_a_screen_shows_parts_pairs_and_all(lattice: SweepResult) -> None:
    text = render_sweep(lattice, "table", Style(100))
    lines = text.splitlines()
    titles = [line for line in lines if line in ("parts by themselves", "two together", "all together")]
    assert titles == ["parts by themselves", "two together", "all together"]
    assert len(lines) <= 40
    assert "interaction" in lines[lines.index("two together") + 1]
    assert "interaction" not in lines[lines.index("parts by themselves") + 1]
    assert sum("bn.bias + conv.bias " in line for line in lines) == 1
    assert (
        sum("bn.weight + conv.weight " in line for line in render_sweep(lattice, "table", Style(80)).splitlines())
        == 1
    )
    whole = render_sweep(lattice, "table", Style(100), every=True)
    assert "three and more together" in whole
    assert "drop by layer and kind" not in whole


def test_programs_are_told_parts_and_interactions(lattice: SweepResult) -> None:
    document = json.loads(render_sweep(lattice, "json", Style()))
    assert document["mode"] == "lattice"
    row = next(row for row in document["rows"] if row["kind"] == "bn.bias + conv.bias")
    assert row["parts"] == ["bn.bias", "conv.bias"]
    assert row["interaction_low"] < row["interaction"] < row["interaction_high"]
    alone = next(row for row in document["rows"] if row["kind"] == "bn.bias")
    assert (alone["parts"], alone["interaction"]) == (["bn.bias"], None)
    heading = render_sweep(lattice, "csv", Style()).splitlines()[0]
    assert "parts,interaction,interaction_low,interaction_high" in heading
    assert "| interaction |" in render_sweep(lattice, "md", Style())


def test_pictures_are_of_two_parts(lattice: SweepResult, run: Path) -> None:
    together, beyond = pairs(lattice), interactions(lattice)
    assert together.rows == together.columns == KINDS
    drops = {row.parts: row.drop for row in lattice.rows}
    assert together.values[0] == (
        drops["bn.bias",], *(drops["bn.bias", other] for other in KINDS[1:])
    )  # fmt: skip
    assert [beyond.values[at][at] for at in range(4)] == [None] * 4
    assert beyond.values[1][2] == beyond.values[2][1] is not None
    assert overview(lattice) == together
    page = sweep_html(lattice, about(str(run)))
    assert "interactions-0" in page
    assert "heatmap-0" not in page


def test_the_answer_names_the_worst_set(lattice: SweepResult) -> None:
    worst = max(lattice.rows, key=lambda row: row.drop or 0.0)
    assert answer(lattice)[0].startswith(f"{worst.kind} breaks it: ")
