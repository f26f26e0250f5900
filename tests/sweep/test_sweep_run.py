"""From two checkpoints to a table, and from the run folder to the same table again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptswap.errors import MetricError, RunError, TaskError
from ckptswap.selection import Selection
from ckptswap.sweep.evidence import load_evidence, load_result
from ckptswap.sweep.journal import BASELINE, DONOR, JOURNAL, read_records
from ckptswap.sweep.plan import variant_id
from ckptswap.sweep.run import Progress, propose, sweep
from ckptswap.task import TaskSpec, load_task

BOTH = [("kind",), ("layer", "kind")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def scored(run: Path) -> list[str]:
    """The variants in the order in which they were journalled."""
    return [json.loads(line)["record"]["variant"] for line in (run / JOURNAL).read_text().splitlines()]


def recorder(seen: list[int]) -> Progress:
    return lambda done, total: seen.append(done)


def test_rows_are_those_of_independent_scores(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0)
    result = sweep(donor, recipient, spec, by=BOTH, run_dir=run, tolerance=0.001)
    records, _ = read_records(run / JOURNAL)
    name = spec.metrics[0]
    score = {variant: float(record.statistics[name].mean()) for variant, record in records.items()}
    assert (result.metric, result.direction, result.samples, result.tolerance) == (name, "min", 20, 0.001)
    assert result.baseline == pytest.approx(score[BASELINE], rel=1e-14)
    assert result.donor_score == pytest.approx(score[DONOR], rel=1e-14)
    for row in result.rows:
        if row.status == "measured":
            assert row.score == pytest.approx(score[variant_id(row.tensors)], rel=1e-14)
            assert row.drop == pytest.approx(row.score - result.baseline, abs=1e-15)
            assert row.sim_low <= row.ci_low <= row.drop <= row.ci_high <= row.sim_high
            assert row.samples == 20


def test_rows_are_ranked_within_each_split(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0)
    rows = sweep(donor, recipient, spec, by=BOTH, run_dir=run).rows
    kinds = [row for row in rows if row.layer is None]
    cells = [row for row in rows if row.layer is not None]
    assert rows == (*kinds, *cells)
    for split in (kinds, cells):
        measured = [row for row in split if row.status == "measured"]
        assert [row.rank for row in measured] == list(range(1, len(measured) + 1))
        assert [row.drop for row in measured] == sorted((row.drop for row in measured), reverse=True)
        assert split[: len(measured)] == measured
    unread = [row for row in cells if row.layer == "unused"]
    assert [(row.drop, row.verdict, row.ci_low, row.ci_high) for row in unread] == [
        (0.0, "reusable", 0.0, 0.0)
    ] * 2
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
    assert (identical.rank, identical.ci_low, identical.sim_high, identical.verdict) == (
        None,
        None,
        None,
        "reusable",
    )
    for row, status, word in ((failed, "failed", "no number"), (mismatch, "mismatch", "[2] in the donor")):
        assert row.status == status
        assert word in row.reason
        assert {
            row.rank,
            row.rmse,
            row.rel_l2,
            row.score,
            row.drop,
            row.ci_low,
            row.samples,
            row.verdict,
        } == {None}
    assert [row.status for row in result.rows[-3:]] == ["identical", "failed", "mismatch"]
    assert result.donor_score is None
    assert any("the donor has no score" in note for note in result.notes)


def test_default_tolerance_is_a_hundredth_of_the_way_to_a_trivial_score(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0)
    result = sweep(donor, recipient, spec, run_dir=run)
    task = load_task(spec, recipient)
    expected = 0.01 * abs(result.baseline - task.trivial(task.metrics[0]))
    assert result.tolerance == pytest.approx(expected)
    assert any("trivial" in note for note in result.notes)


def test_the_folder_alone_gives_the_same_table(spec: TaskSpec, save, own: Path, run: Path) -> None:
    result = sweep(save(1), save(0), spec, by=BOTH, run_dir=run, tolerance=0.002)
    own.unlink()
    assert load_result(run) == result
    other = load_result(run, metric="iou")
    assert (other.metric, other.direction) == ("iou", "max")
    strict = load_result(run, tolerance=-1.0)
    assert {row.verdict for row in strict.rows if row.status == "measured"} == {"sensitive"}
    with pytest.raises(MetricError, match=r"iuo.*did you mean 'iou'"):
        load_result(run, metric="iuo")


def test_the_folder_is_read_without_torch(spec: TaskSpec, save, run: Path) -> None:
    sweep(save(1), save(0), spec, run_dir=run)
    code = (
        "import sys; from ckptswap.sweep.evidence import load_result; import ckptswap.sweep.run; "
        f"print(len(load_result({str(run)!r}).rows), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["18", "False"]


def test_a_resumed_run_computes_only_what_is_missing(spec: TaskSpec, save, tmp_path: Path) -> None:
    donor, recipient = save(1), save(0)
    whole = sweep(donor, recipient, spec, by=BOTH, run_dir=tmp_path / "whole")
    journal = (tmp_path / "whole" / JOURNAL).read_bytes()
    lines = journal.splitlines(keepends=True)
    for done in (0, 1, 2, 5, len(lines) - 1, len(lines)):
        run = tmp_path / f"run{done}"
        run.mkdir()
        (run / "plan.json").write_bytes((tmp_path / "whole" / "plan.json").read_bytes())
        (run / JOURNAL).write_bytes(b"".join(lines[:done]) + (lines[done][:40] if done < len(lines) else b""))
        seen: list[int] = []
        resumed = sweep(donor, recipient, spec, by=BOTH, run_dir=run, progress=recorder(seen))
        assert resumed == whole
        assert seen == list(range(done, len(lines) + 1))
        assert (run / JOURNAL).read_bytes() == journal


def test_a_finished_run_does_not_touch_the_model(spec: TaskSpec, save, run: Path, monkeypatch) -> None:
    donor, recipient = save(1), save(0)
    result = sweep(donor, recipient, spec, run_dir=run)
    monkeypatch.setattr("ckptswap.sweep.engine.FullEngine", None)
    assert sweep(donor, recipient, spec, run_dir=run) == result


def test_a_widened_selection_reuses_what_is_there(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0)
    narrow = sweep(donor, recipient, spec, selection=Selection.parse(kind=["bn.*"]), run_dir=run)
    first = scored(run)
    wide = sweep(donor, recipient, spec, by=BOTH, run_dir=run, tolerance=0.5)
    assert scored(run)[: len(first)] == first
    assert len(scored(run)) == len(set(scored(run)))
    assert {row.tensors for row in narrow.rows} < {row.tensors for row in wide.rows}


def test_an_interrupt_leaves_a_journal_that_continues(spec: TaskSpec, save, tmp_path: Path) -> None:
    donor, recipient = save(1), save(0)
    run = tmp_path / "run"

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(donor, recipient, spec, run_dir=run, progress=interrupt)
    assert len(scored(run)) == 5
    partly = load_result(run)
    assert [row.status for row in partly.rows] == ["measured"] * 3 + ["identical"] * 2
    assert any("13 of 18 rows are not scored yet" in note for note in partly.notes)
    assert sweep(donor, recipient, spec, run_dir=run) == sweep(donor, recipient, spec, run_dir=tmp_path / "other")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"threads": 2}, r"task \(threads was 1, is 2\)"),
        ({"batch-size": 5}, r"conditions: task \(batch_size was 6, is 5\): use another"),
        ({"limit": 19}, r"task \(limit was None, is 19\); data changed"),
        ({"metric": "iou"}, r"task \(metrics changed"),
    ],
)
def test_another_task_is_another_run(spec: TaskSpec, save, run: Path, flags: dict, words: str) -> None:
    donor, recipient = save(1), save(0)
    sweep(donor, recipient, spec, selection=Selection.parse(only=["dec.3.bias"]), run_dir=run)
    with pytest.raises(RunError, match=words):
        sweep(donor, recipient, spec.merge(flags), run_dir=run)


def test_another_checkpoint_or_source_is_another_run(spec: TaskSpec, save, own: Path, run: Path) -> None:
    donor, recipient = save(1), save(0)
    only = Selection.parse(only=["dec.3.bias"])
    sweep(donor, recipient, spec, selection=only, run_dir=run)
    with pytest.raises(RunError, match="conditions: donor changed: "):
        sweep(save(2), recipient, spec, selection=only, run_dir=run)
    own.write_text(own.read_text() + "\n")
    with pytest.raises(RunError, match=r"conditions: code \("):
        sweep(donor, recipient, spec, selection=only, run_dir=run)
    sweep(donor, recipient, spec, selection=only, run_dir=run, fresh=True)
    assert (run / "journal.1.jsonl").exists()


def test_a_failed_variant_is_tried_again(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1, dec__3__bias=torch.tensor([torch.nan])), save(0)
    only = Selection.parse(only=["dec.3.*"])
    first = sweep(donor, recipient, spec, selection=only, run_dir=run)
    assert [row.status for row in first.rows] == ["measured", "failed"]
    assert sweep(donor, recipient, spec, selection=only, run_dir=run) == first
    assert sorted(scored(run).count(variant_id(row.tensors)) for row in first.rows) == [1, 2]


def test_a_baseline_with_nan_outputs_is_an_error(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0, dec__3__bias=torch.tensor([torch.nan]))
    with pytest.raises(TaskError, match=r"baseline fails.*NaN"):
        sweep(donor, recipient, spec, run_dir=run)
    assert not run.exists(), "nothing is written before the baseline is known to be sound"


def test_few_groups_have_no_intervals_and_one_note(spec: TaskSpec, save, run: Path) -> None:
    few = spec.merge({"data-args": {"group": 3}})
    result = sweep(save(1), save(0), few, run_dir=run)
    measured = [row for row in result.rows if row.status == "measured"]
    assert {row.verdict for row in measured} == {"undecided"}
    assert {row.ci_low for row in measured} | {row.sim_high for row in measured} == {None}
    assert sum("7 groups" in note for note in result.notes) == 1
    found = load_evidence(run).contrast({0: 1.0})
    assert (found.estimate, found.low, found.high) == (pytest.approx(result.rows[0].drop), None, None)


def test_contrasts_are_paired_sums_of_drops(spec: TaskSpec, save, run: Path) -> None:
    recipient = save(0)
    donor = save(1, enc__0__bias=torch.from_numpy(recipient.read("enc.0.bias")))
    sweep(donor, recipient, spec, by=BOTH, run_dir=run)
    evidence = load_evidence(run)
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


def test_a_pooled_metric_reads_back(spec: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1), save(0)
    pooled = spec.merge({"metric": "iou:pooled"})
    result = sweep(donor, recipient, pooled, run_dir=run)
    task = load_task(pooled, recipient)
    task.load(recipient)
    counts = task.measure().statistics["iou:pooled"].sum(axis=0)
    assert result.baseline == pytest.approx(counts[0] / counts[:3].sum())
    assert np.isfinite([row.ci_high for row in result.rows if row.status == "measured"]).all()


def test_proposing_writes_nothing_and_says_the_cost(spec: TaskSpec, save, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    donor, recipient = save(1), save(0)
    before = sorted(tmp_path.iterdir())
    proposal = propose(donor, recipient, spec, by=BOTH)
    assert sorted(tmp_path.iterdir()) == before
    assert proposal.cost == (len(proposal.plan.variants()) + 2) * 20
    assert proposal.folder.parent == Path("runs")
    assert len(proposal.folder.name) == 12
    assert proposal.folder == propose(donor, recipient, spec, selection=Selection.parse(kind=["bn.*"])).folder
    assert proposal.folder != propose(recipient, donor, spec).folder
