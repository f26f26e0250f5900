"""From two checkpoints to a table, and from the run folder to the same table again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import odd_models
import pytest
import torch
from plain import plain_outputs
from sweeping import prepare, ran, sweep

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MetricError, ModelError, RunError, TaskError
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import BASELINE
from ckptswap.selection import Selection
from ckptswap.sweep import progress, runner
from ckptswap.sweep.analysis import Analysis, load_analysis, load_result
from ckptswap.sweep.plan import variant_id
from ckptswap.sweep.progress import Progress
from ckptswap.sweep.run_folder.blocks import DONOR
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import decode, journal_files
from ckptswap.sweep.run_folder.plain import JOURNAL
from ckptswap.task import Task, TaskSpec, load_task

BOTH = [("kind",), ("layer", "kind")]
ODD = Path(odd_models.__file__)
FEW = Selection.parse(only=["head.*", "norm.weight"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def blocks(run: Path) -> list[Block]:
    """The journal's blocks, in the order in which they were written."""
    return [decode(line) for path in journal_files(run) for line in path.read_bytes().splitlines(True)[1:]]


def places(run: Path) -> list[tuple[str, int]]:
    return [(block.variant, block.batch) for block in blocks(run)]


def recorder(seen: list[int]) -> Progress:
    return lambda done, total: seen.append(done)


def plain_scores(
    spec: TaskSpec, donor: Checkpoint, recipient: Checkpoint, variants: Mapping[Any, tuple[str, ...]]
) -> dict[Any, dict[str, float]]:
    """Error and IoU of each variant by a plain loop, the mean over images."""
    task, found = load_task(spec, recipient), {}
    targets = [batch.targets for batch in task.batches()]
    for key, names in variants.items():
        errors: list[float] = []
        overlaps: list[float] = []
        for output, masks in zip(plain_outputs(task, donor, recipient, names), targets, strict=True):
            for guess, mask in zip(output[:, 0], masks, strict=True):
                errors.append((guess - mask).square().mean().item())
                both, either = ((guess > 0) & (mask > 0)).sum().item(), ((guess > 0) | (mask > 0)).sum().item()
                overlaps.append(both / either if either else 1.0)
        found[key] = {"error": float(np.mean(errors)), "iou": float(np.mean(overlaps))}
    return found


# The table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "full"])
def test_rows_are_those_of_a_plain_loop(skip: TaskSpec, save, run: Path, engine) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    result = sweep(donor, recipient, skip, by=BOTH, run_dir=run, tolerance=0.001, engine=engine)
    rows = {row.tensors: row for row in result.rows if row.status == "measured"}
    score = plain_scores(
        skip, donor, recipient, {**{names: names for names in rows}, BASELINE: (), DONOR: tuple(donor)}
    )
    name = skip.metrics[0]
    assert (result.metric, result.direction, result.samples, result.tolerance) == (name, "min", 20, 0.001)
    assert result.baseline == pytest.approx(score[BASELINE]["error"], rel=1e-6)
    assert result.donor_score == pytest.approx(score[DONOR]["error"], rel=1e-6)
    assert len(rows) > 15
    other = {row.tensors: row for row in load_result(run, "iou").rows}
    for names, row in rows.items():
        assert row.score == pytest.approx(score[names]["error"], rel=1e-6)
        assert other[names].score == pytest.approx(score[names]["iou"], rel=1e-12)
        assert row.drop == pytest.approx(row.score - result.baseline, abs=1e-15)
        if row.is_unproven:
            assert (row.ci_low, row.sim_high, row.verdict) == (None, None, "undecided")
        else:
            assert row.sim_low <= row.ci_low <= row.drop <= row.ci_high <= row.sim_high
        assert row.samples == 20
    assert {block.engine for block in blocks(run) if block.variant != BASELINE} == {
        "full" if engine == "full" else "replay"
    }


def test_every_engine_and_memory_gives_the_same_table(skip: TaskSpec, save, tmp_path: Path) -> None:
    """But for the rows that a graph knows, which full passes measure: 0, and they cannot tell that it stays so."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    full, *others = (
        sweep(donor, recipient, skip, run_dir=tmp_path / str(at), engine=engine, memory=memory)
        for at, (engine, memory) in enumerate([("full", None), ("auto", None), ("replay", 1), ("auto", 9_000)])
    )
    assert others[1:] == others[:1] * 2
    known = {row.tensors: row for row in others[0].rows if row.status == "no-effect"}
    assert set(known) == {("unused.weight",), ("unused.bias",)}
    for row in full.rows:
        if row.tensors not in known:
            assert row.score == next(each.score for each in others[0].rows if each.tensors == row.tensors)
        elif row.tensors in known:
            assert (row.status, row.drop, row.score) == ("measured", 0.0, full.baseline)
            assert (row.ci_low, row.ci_high, row.sim_low, row.sim_high) == (None,) * 4
            assert (row.verdict, row.is_unproven) == ("undecided", True)
            assert row.reason.startswith("moved in 0 of 10 groups: one group's loss in ")
    for row in known.values():
        assert (row.score, row.drop, row.verdict) == (full.baseline, 0.0, "reusable")
        assert row.rank is row.ci_low is row.sim_high is row.samples is None


def test_rows_are_ranked_within_each_split(spec: TaskSpec, save, run: Path) -> None:
    rows = sweep(save(1), save(0), spec, by=BOTH, run_dir=run).rows
    kinds = [row for row in rows if row.layer is None]
    cells = [row for row in rows if row.layer is not None]
    assert rows == (*kinds, *cells)
    for split in (kinds, cells):
        measured = [row for row in split if row.status == "measured"]
        assert [row.rank for row in measured] == list(range(1, len(measured) + 1))
        assert [row.drop for row in measured] == sorted((row.drop for row in measured), reverse=True)
        assert split[: len(measured)] == measured
    unread = [row for row in cells if row.layer == "unused"]
    assert [(row.drop, row.ci_low, row.ci_high) for row in unread] == [(0.0, None, None)] * 2
    assert [row.kind for row in unread] == ["linear.bias", "linear.weight"]  # ties keep natural order


def test_identical_mismatched_and_failed_rows(spec: TaskSpec, save, run: Path) -> None:
    recipient = save(0)
    same = torch.from_numpy(recipient.read("enc.0.bias"))
    donor = save(
        1, enc__0__bias=same, dec__3__weight=torch.full((1, 4, 1, 1), torch.inf), dec__3__bias=torch.zeros(2)
    )
    result = sweep(donor, recipient, spec, run_dir=run)
    rows = {(row.layer, row.kind): row for row in result.rows}
    identical, failed, mismatch = (
        rows[key] for key in (("enc.0", "conv.bias"), ("dec.3", "conv.weight"), ("dec.3", "conv.bias"))
    )
    assert (identical.status, identical.score, identical.drop) == ("identical", result.baseline, 0.0)
    assert (identical.rank, identical.ci_low, identical.sim_high) == (None, None, None)
    assert identical.verdict == "reusable"
    for row, status, word in ((failed, "failed", "no number"), (mismatch, "mismatch", "[2] in the donor")):
        assert row.status == status
        assert word in row.reason
        numbers = row.rank, row.rmse, row.rel_l2, row.score, row.drop, row.ci_low, row.samples, row.verdict
        assert set(numbers) == {None}
    assert [row.status for row in result.rows[-3:]] == ["identical", "failed", "mismatch"]
    assert result.donor_score is None
    assert any("the donor has no score" in note and "does not fit the model" in note for note in result.notes)


def test_a_donor_that_fails_is_told(spec: TaskSpec, save, run: Path) -> None:
    donor = save(1, dec__3__weight=torch.full((1, 4, 1, 1), torch.inf))
    result = sweep(donor, save(0), spec, run_dir=run, selection=Selection.parse(only=["dec.3.bias"]))
    assert result.donor_score is None
    assert any("no score on this task: " in note and "no number" in note for note in result.notes)


def test_a_variant_with_nan_outputs_is_failed_at_its_first_batch(skip: TaskSpec, save, run: Path) -> None:
    """What follows is not computed; its statistics are not looked at, since thresholds hide NaN."""
    donor, recipient = save(1, "Skip", head__bias=torch.tensor([torch.nan])), save(0, "Skip")
    result = sweep(donor, recipient, skip, run_dir=run, selection=FEW)
    [failed] = [row for row in result.rows if row.status == "failed"]
    first = blocks(run)[4]
    assert failed.tensors == ("head.bias",)
    outputs = f"{6 * 144} of the model's outputs are NaN or infinite in batch 0"
    assert failed.reason == f"{outputs}; no distance: donor 1 NaN"
    assert [batch for variant, batch in places(run) if variant == variant_id(["head.bias"])] == [0]
    assert first.batch == 0
    assert sorted(row.status for row in result.rows) == ["failed", "measured", "measured"]


def test_default_tolerance_is_a_hundredth_of_the_way_to_a_trivial_score(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0)
    result = sweep(donor, recipient, spec, run_dir=run)
    task = load_task(spec, recipient)
    expected = 0.01 * abs(result.baseline - task.trivial(task.metrics[0]))
    assert result.tolerance == pytest.approx(expected)
    assert any("trivial" in note for note in result.notes)


def test_few_groups_have_no_intervals_and_one_note(skip: TaskSpec, save, run: Path) -> None:
    few = skip.merge({"data-args": {"group": 3}})
    result = sweep(save(1, "Skip"), save(0, "Skip"), few, run_dir=run, selection=FEW)
    assert {row.verdict for row in result.rows} == {"undecided"}
    assert {row.ci_low for row in result.rows} | {row.sim_high for row in result.rows} == {None}
    assert sum("7 groups" in note for note in result.notes) == 1
    found = load_analysis(run).contrast({0: 1.0})
    assert (found.estimate, found.low, found.high) == (pytest.approx(result.rows[0].drop), None, None)


def test_contrasts_are_paired_sums_of_drops(spec: TaskSpec, save, run: Path) -> None:
    recipient = save(0)
    donor = save(1, enc__0__bias=torch.from_numpy(recipient.read("enc.0.bias")))
    sweep(donor, recipient, spec, by=BOTH, run_dir=run)
    evidence = load_analysis(run)
    rows = evidence.result.rows
    single = evidence.contrast({2: 1.0})
    assert (single.estimate, single.low, single.high) == (rows[2].drop, rows[2].ci_low, rows[2].ci_high)
    mixed = evidence.contrast({0: 0.5, 1: 0.5, 5: -1.0})
    assert mixed.estimate == pytest.approx((rows[0].drop + rows[1].drop) / 2 - rows[5].drop)
    assert mixed.low < mixed.estimate < mixed.high
    assert evidence.contrast({3: 1.0, 4: -1.0}).estimate == pytest.approx(rows[3].drop - rows[4].drop)
    index = next(at for at, row in enumerate(rows) if row.status == "identical")
    nothing = evidence.contrast({index: 1.0})
    assert (nothing.estimate, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    beside = evidence.contrast({2: 1.0, index: -1.0})
    assert beside == single


def test_a_pooled_metric_reads_back(skip: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    pooled = skip.merge({"metric": "iou:pooled"})
    result = sweep(donor, recipient, pooled, run_dir=run, selection=FEW)
    counts = load_task(pooled, recipient).measure().statistics["iou:pooled"].sum(axis=0)
    assert result.baseline == pytest.approx(counts[0] / counts[:3].sum())
    assert np.isfinite([row.ci_high for row in result.rows]).all()


# What the graph knows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sizes"), [("Wide", [12, 16]), ("Wide", [16, 12]), ("Few", [12])])
def test_what_any_form_of_batch_reads_has_an_effect(spec: TaskSpec, save, run: Path, name, sizes) -> None:
    """A layer that only wide images, or only small batches, go through: whichever comes first."""
    odd = replace(spec, model=f"{ODD}:{name}", data_args={"sizes": sizes})
    result = sweep(save(1, name), save(0, name), odd, run_dir=run, selection=Selection.parse(layers=["extra"]))
    assert [row.status for row in result.rows] == ["measured"] * 2
    assert all(row.drop for row in result.rows)


def test_nothing_is_known_of_more_shapes_than_are_captured(skip: TaskSpec, save, run: Path) -> None:
    many = replace(skip, data_args={"sizes": list(range(3, 13))}, batch_size=2)
    proposal = prepare(save(1, "Skip"), save(0, "Skip"), many, run_dir=run, engine="replay")
    assert {cell.names[0] for cell in proposal.plan.cells if cell.status == "measured"} >= {"unused.weight"}
    assert proposal.scorer.notes == ["inputs of more than 8 shapes: the rest is run in full"]


def test_a_model_that_saves_under_other_names_is_measured(spec: TaskSpec, save, run: Path) -> None:
    odd = replace(spec, model=f"{ODD}:Renamed")
    donor, recipient = save(1, "Renamed"), save(0, "Renamed")
    result = sweep(donor, recipient, odd, run_dir=run, selection=Selection.parse(only=["net.head.*"]))
    assert [row.status for row in result.rows] == ["measured"] * 2
    assert all(row.drop for row in result.rows)


# The folder alone -----------------------------------------------------------------------------------------------


def test_the_folder_alone_gives_the_same_table(skip: TaskSpec, save, own: Path, run: Path) -> None:
    result = sweep(save(1, "Skip"), save(0, "Skip"), skip, by=BOTH, run_dir=run, tolerance=0.002)
    own.unlink()
    assert load_result(run) == result
    other = load_result(run, metric="iou")
    assert (other.metric, other.direction) == ("iou", "max")
    wide = load_result(run, tolerance=1e6)
    assert {row.verdict for row in wide.rows if row.status == "measured"} == {"reusable"}
    with pytest.raises(MetricError, match=r"iuo.*did you mean 'iou'"):
        load_result(run, metric="iuo")


def test_the_folder_is_read_without_torch(skip: TaskSpec, save, run: Path) -> None:
    result = sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=run)
    code = (
        "import sys; from ckptswap.sweep.analysis import load_result; "
        f"print(len(load_result({str(run)!r}).rows), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(len(result.rows)), "False"]


def test_a_folder_without_scores(skip: TaskSpec, save, run: Path) -> None:
    sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=run, selection=FEW)
    shutil.rmtree(run / JOURNAL)
    with pytest.raises(RunError, match="has no scores yet: run the same"):
        load_result(run)


# Stopped and continued ------------------------------------------------------------------------------------------


def test_batches_first_variants_inside(skip: TaskSpec, save, run: Path) -> None:
    """The baseline whole, then batch by batch, every variant once."""
    seen: list[int] = []
    sweep(save(1, "Skip"), save(0, "Skip"), skip, by=BOTH, run_dir=run, progress=recorder(seen))
    found = places(run)
    assert found[:4] == [(BASELINE, number) for number in range(4)]
    later = [batch for _, batch in found[4:]]
    assert later == sorted(later)
    assert len(found) == len(set(found))
    variants = {variant for variant, _ in found}
    assert len(found) == 4 * len(variants)
    assert DONOR in variants
    assert seen == list(range(len(found) + 1))


def test_the_table_so_far_knows_of_the_race(skip: TaskSpec, save, run: Path, monkeypatch) -> None:
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    monkeypatch.setattr(progress, "SPARE", 0.0)
    told: list[Analysis] = []
    final = sweep(
        save(1, "Skip"), save(0, "Skip"), skip, run_dir=run, by=BOTH, top=1, tolerance=0.001, news=told.append
    )
    assert told[-1].result == final
    assert any("race" in note for note in told[0].result.notes), told[0].result.notes
    assert final.complete
    assert any(row.samples < final.samples for row in final.rows)
    assert not any("the same command continues" in note for note in final.notes), final.notes


def test_the_plan_is_there_before_the_work(skip: TaskSpec, save, run: Path, monkeypatch) -> None:
    def stop(*_: object) -> None:
        assert RunFolder(run).read_plan().plan.cells
        assert {variant for variant, _ in places(run)} == {BASELINE}
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "score_in_turn", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=run)


@pytest.fixture
def whole(skip: TaskSpec, save, tmp_path: Path) -> Path:
    """A finished run."""
    sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "whole", selection=FEW)
    return tmp_path / "whole"


@pytest.mark.parametrize("cut", [0.0, 0.02, 0.1, 0.3, 0.55, 0.8, 0.999])
@pytest.mark.parametrize("engine", ["auto", "full"])
def test_a_run_continues_from_a_journal_cut_anywhere(
    skip: TaskSpec, save, run: Path, whole: Path, cut, engine
) -> None:
    shutil.copytree(whole, run)
    [journal] = journal_files(run)
    content = journal.read_bytes()
    journal.write_bytes(content[: int(cut * len(content))])
    kept = places(whole)[: max(journal.read_bytes().count(b"\n") - 1, 0)]
    seen: list[int] = []
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    result = sweep(donor, recipient, skip, run_dir=run, selection=FEW, engine=engine, progress=recorder(seen))
    assert result == load_result(whole)
    assert (seen[0], seen[-1]) == (len(kept), len(places(whole)))
    again = places(run)
    assert again[: len(kept)] == kept
    assert len(again) == len(set(again))  # no block twice, the baseline's included
    assert set(again) == set(places(whole))


def test_a_finished_run_computes_no_score(skip: TaskSpec, save, whole: Path, monkeypatch) -> None:
    before = (whole / JOURNAL / "main.jsonl").read_bytes()
    monkeypatch.setattr(FullScorer, "outputs", None)
    monkeypatch.setattr(Task, "measure", None)
    result = sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=whole, selection=FEW)
    assert result == load_result(whole)
    assert (whole / JOURNAL / "main.jsonl").read_bytes() == before


def test_a_widened_selection_reuses_what_is_there(skip: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    narrow = sweep(donor, recipient, skip, selection=Selection.parse(kind=["bn.*"]), run_dir=run)
    first = places(run)
    wide = sweep(donor, recipient, skip, by=BOTH, run_dir=run, tolerance=0.5)
    assert places(run)[: len(first)] == first
    assert len(places(run)) == len(set(places(run)))
    assert {row.tensors for row in narrow.rows} < {row.tensors for row in wide.rows}


def test_an_interrupt_leaves_a_table_of_what_there_is(skip: TaskSpec, save, tmp_path: Path) -> None:
    """Rows rest on the batches that were scored, and say on how many samples; the same command continues."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    run = tmp_path / "run"

    def interrupt(done: int, total: int) -> None:
        if done == 4 + 4 + 2:  # baseline, first batch of the donor and three variants, two of the second batch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(donor, recipient, skip, run_dir=run, selection=FEW, progress=interrupt)
    assert len(places(run)) == 10
    partly = load_result(run)
    task = load_task(skip, recipient)
    done = {
        row.tensors: [number for variant, number in places(run) if variant == variant_id(row.tensors)]
        for row in partly.rows
    }
    assert sorted(done.values()) == [[0], [0], [0, 1]] or sorted(done.values()) == [[0], [0, 1], [0, 1]]
    assert partly.samples == 20
    assert any(
        "3 rows rest on" in note and "of 20 samples so far: the same command continues" in note
        for note in partly.notes
    )
    baseline = load_task(skip, recipient).measure().statistics[skip.metrics[0]][:, 0]
    for row in partly.rows:
        there = np.concatenate([task.data.places[number] for number in done[row.tensors]])
        assert row.samples == len(there)
        assert row.drop == pytest.approx(row.score - baseline[there].mean(), abs=1e-12), (
            "paired, on the same samples"
        )
    other = sweep(donor, recipient, skip, run_dir=tmp_path / "other", selection=FEW)
    assert sweep(donor, recipient, skip, run_dir=run, selection=FEW) == other
    assert not any("so far" in note for note in other.notes)


def test_rows_that_are_not_begun_are_counted(skip: TaskSpec, save, run: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=run, progress=interrupt)
    partly = load_result(run)
    cells = len(RunFolder(run).read_plan().plan.cells)
    assert len(partly.rows) < cells
    assert any(f"{cells - len(partly.rows)} of {cells} rows are not scored yet" in note for note in partly.notes)


def test_a_failed_variant_is_tried_again(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1, dec__3__bias=torch.tensor([torch.nan])), save(0)
    only = Selection.parse(only=["dec.3.*"])
    first = sweep(donor, recipient, spec, selection=only, run_dir=run)
    assert [row.status for row in first.rows] == ["measured", "failed"]
    assert sweep(donor, recipient, spec, selection=only, run_dir=run) == first
    numbers = {row.status: [b for v, b in places(run) if v == variant_id(row.tensors)] for row in first.rows}
    assert numbers == {"measured": [0, 1, 2, 3], "failed": [0, 0]}


def test_a_failure_that_passes_is_forgotten(skip: TaskSpec, save, run: Path, monkeypatch) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    forward = Task.forward

    def flaky(task: Task, batch: torch.Tensor) -> torch.Tensor:
        if task.model.state_dict()["head.bias"].item() != recipient.read("head.bias").item():
            raise ModelError("out of luck")
        return forward(task, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Task, "forward", flaky)
        first = sweep(donor, recipient, skip, run_dir=run, selection=FEW, engine="full")
    assert [row.reason for row in first.rows if row.status == "failed"] == ["out of luck"]
    second = sweep(donor, recipient, skip, run_dir=run, selection=FEW, engine="full")
    assert {row.status for row in second.rows} == {"measured"}
    assert {row.samples for row in second.rows} == {20}


# Another run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"threads": 2}, r"task \(threads was 1, is 2\)"),
        ({"batch-size": 5}, r"conditions: task \(batch_size was 6, is 5\): use another"),
        ({"limit": 19}, r"task \(limit was None, is 19 at random, seed 3411\); data changed"),
        ({"metric": "iou"}, r"task \(metrics changed"),
    ],
)
def test_another_task_is_another_run(skip: TaskSpec, save, whole: Path, flags: dict, words: str) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*.js*")}
    with pytest.raises(RunError, match=words):
        sweep(save(1, "Skip"), save(0, "Skip"), skip.merge(flags), run_dir=whole, selection=FEW)
    assert {path: path.read_bytes() for path in whole.rglob("*.js*")} == before


def test_another_checkpoint_or_source_is_another_run(skip: TaskSpec, save, own: Path, whole: Path) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    with pytest.raises(RunError, match="conditions: donor changed: "):
        sweep(save(2, "Skip"), recipient, skip, selection=FEW, run_dir=whole)
    own.write_text(own.read_text() + "\n")
    with pytest.raises(RunError, match=r"conditions: code \("):
        sweep(donor, recipient, skip, selection=FEW, run_dir=whole)
    sweep(donor, recipient, skip, selection=FEW, run_dir=whole, fresh=True)
    assert (whole / "journal.1" / "main.jsonl").exists()


def test_engine_and_memory_are_no_condition(skip: TaskSpec, save, whole: Path) -> None:
    before = places(whole)
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    for engine, memory in (("full", None), ("replay", 1)):
        sweep(donor, recipient, skip, selection=FEW, run_dir=whole, engine=engine, memory=memory)
    assert places(whole) == before


# What cannot be scored ------------------------------------------------------------------------------------------


def refused(run: Path, error: type[Exception], words: str, *what: Any, **how: Any) -> None:
    with pytest.raises(error, match=words):
        sweep(*what, run_dir=run, **how)
    assert not run.exists(), "nothing is written before the baseline is known to be sound"


@pytest.mark.parametrize("engine", ["auto", "full"])
def test_a_baseline_with_nan_outputs_is_an_error(skip: TaskSpec, save, run: Path, engine) -> None:
    recipient = save(0, "Skip", head__bias=torch.tensor([torch.nan]))
    refused(run, TaskError, r"baseline fails.*NaN", save(1, "Skip"), recipient, skip, engine=engine)


def test_a_baseline_with_nan_leaves_an_older_run_alone(skip: TaskSpec, save, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*.js*")}
    recipient = save(0, "Skip", head__bias=torch.tensor([torch.nan]))
    with pytest.raises(TaskError, match="baseline fails"):
        sweep(save(1, "Skip"), recipient, skip, run_dir=whole, fresh=True)
    assert {path: path.read_bytes() for path in whole.rglob("*.js*")} == before


def test_a_baseline_that_fails_later_leaves_what_others_put_beside_it(
    skip: TaskSpec, save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = prepare(save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "runs/deep/own")
    baseline = runner.Sweep._baseline

    def failing(self: runner.Sweep, missing: Any) -> Any:
        if missing == {0}:
            return baseline(self, missing)
        (tmp_path / "runs/other").mkdir()
        raise TaskError("the baseline fails")

    monkeypatch.setattr(runner.Sweep, "_baseline", failing)
    with pytest.raises(TaskError):
        ran(planned)
    assert [path.name for path in tmp_path.glob("runs/**/*")] == ["other"]


@pytest.mark.parametrize("engine", ["auto", "full"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Counts", r"changes its own 'seen' when it runs"),
        ("Drops", "random numbers|another output when it is run again"),
        ("Rolls", "another output when it is run again"),
    ],
)
def test_models_that_no_engine_can_score(spec: TaskSpec, save, run: Path, name, words, engine) -> None:
    odd = replace(spec, model=f"{ODD}:{name}")
    refused(run, TaskError, words, save(1, name), save(0, name), odd, engine=engine)


@pytest.mark.parametrize("engine", ["auto", "full"])
@pytest.mark.parametrize(
    ("kind", "key", "words"),
    [("none", None, "gives NoneType"), ("dict", None, "several outputs"), ("tuple", "2", "no output '2'")],
)
def test_outputs_that_cannot_be_scored(spec: TaskSpec, save, run: Path, kind, key, words, engine) -> None:
    args = {"kind": kind}
    odd = replace(spec, model=f"{ODD}:Gives", model_args=args, output_key=key)
    refused(run, TaskError, words, save(1, "Gives", args), save(0, "Gives", args), odd, engine=engine)


# Replays that are found wrong -----------------------------------------------------------------------------------


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Every replayed variant from the `n`-th on has one other bit."""

    def wrong(first: int) -> None:
        replayed, left = Replay._replayed, iter(range(10**9))

        def spoilt(*args: Any) -> torch.Tensor:
            found = replayed(*args)
            if next(left) >= first:
                found.view(-1).view(torch.uint8)[0] ^= 1
            return found

        monkeypatch.setattr(Replay, "_replayed", spoilt)

    return wrong


def after_distrust(run: Path) -> list[Block]:
    """What was written after the one line that says that replays cannot be trusted."""
    lines = (run / JOURNAL / "main.jsonl").read_bytes().splitlines(True)
    [at] = [at for at, line in enumerate(lines) if b"cannot be trusted" in line]
    return [decode(line) for line in lines[at + 1 :]]


@pytest.mark.parametrize("first", [0, 3, 13])
def test_everything_replayed_is_computed_again_in_full(
    skip: TaskSpec, save, run: Path, whole: Path, spoil, first: int
) -> None:
    """Wrong from the first variant on, from the last of the first batch, or in the last batch's new shape only."""
    spoil(first)
    proposal = prepare(save(1, "Skip"), save(0, "Skip"), skip, run_dir=run, selection=FEW)
    assert ran(proposal) == load_result(whole)
    assert proposal.scorer.how == "full"
    [note] = proposal.scorer.notes
    assert "has other bits than a full pass: every variant is run in full" in note
    again = after_distrust(run)
    assert {block.engine for block in again} == {"full"}
    assert sorted((each.variant, each.batch) for each in again) == sorted(places(whole)[4:])


def test_distrust_outlives_the_run(skip: TaskSpec, save, run: Path, whole: Path, spoil) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")

    def interrupt(done: int, total: int) -> None:
        if (run / JOURNAL).exists() and b"cannot be trusted" in (run / JOURNAL / "main.jsonl").read_bytes():
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replay, "_replayed", Replay._replayed)  # put back at the end, whatever spoils it
        spoil(0)
        with pytest.raises(KeyboardInterrupt):
            sweep(donor, recipient, skip, run_dir=run, selection=FEW, progress=interrupt)
    proposal = prepare(donor, recipient, skip, run_dir=run, selection=FEW)
    assert ran(proposal) == load_result(whole)
    assert proposal.scorer.notes == [
        "an earlier part of this run found replays with other bits than full passes: every variant is run in full"
    ]
    assert {block.engine for block in after_distrust(run)} == {"full"}


def test_where_nothing_but_replays_is_allowed_wrong_ones_are_an_error_and_not_kept(
    skip: TaskSpec, save, run: Path, whole: Path, spoil
) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    spoil(3)
    for words in ("a replayed variant", "an earlier part of this run"):
        with pytest.raises(ModelError, match=f"{words}.* other bits than .*: use --engine full, or auto"):
            sweep(donor, recipient, skip, run_dir=run, selection=FEW, engine="replay")
    assert load_result(run).rows == ()
    assert sweep(donor, recipient, skip, run_dir=run, selection=FEW) == load_result(whole)


def test_a_variant_that_fails_in_a_race_is_tried_once(spec: TaskSpec, save, run: Path) -> None:
    """Every round of a race walks again; what failed in one is not run in the next."""
    donor = save(1, dec__3__weight=torch.full((1, 4, 1, 1), torch.inf))
    sweep(donor, save(0), spec, run_dir=run, top=2, tolerance=0.001)
    failures = [block for block in blocks(run) if block.failed is not None]
    assert len(failures) == len({block.variant for block in failures}) > 0
