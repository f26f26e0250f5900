"""`--screen sample:N`: the walk begins with N samples, on which every variant is scored first, and once."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from plain import plain_network
from sweeping import prepare, ran, sweep
from test_sweep_modes import READ

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError, UsageError
from ckptswap.report.html import about, sweep_html
from ckptswap.report.sweep import sweep_csv, sweep_json, sweep_md
from ckptswap.report.text import dump_json
from ckptswap.scoring.variant import BASELINE
from ckptswap.sweep import loop
from ckptswap.sweep.analysis import load_result
from ckptswap.sweep.preparing import executor_of
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import decode, journal_files
from ckptswap.sweep.spec import RunOptions
from ckptswap.task import TaskSpec, load_task

MADE = """

def made():
    items = data()
    for at in range(0, 20, 5):
        images, masks, groups = zip(*items[at : at + 5])
        yield torch.stack(images), torch.stack(masks), list(groups)
"""
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "sweep.schema.json"
HOW = {"selection": READ, "tolerance": 0.01}


def written(run: Path) -> list[tuple[str, int]]:
    """Variant and batch of each block, in the order in which they were written."""
    lines = [line for path in journal_files(run) for line in path.read_bytes().splitlines(keepends=True)[1:]]
    return [(block.variant, block.batch) for block in map(decode, lines)]


def errors(
    task: TaskSpec, donor: Checkpoint, recipient: Checkpoint, names: tuple[str, ...], at: list[int]
) -> float:
    """The mean error on these samples, one forward pass of a network of its own."""
    loaded = load_task(replace(task, screen_samples=None), recipient)
    parts = [(batch.places.tolist(), batch.inputs, batch.targets) for batch in loaded.batches()]
    inputs = {place: x for places, xs, _ in parts for place, x in zip(places, xs, strict=True)}
    targets = {place: y for places, _, ys in parts for place, y in zip(places, ys, strict=True)}
    network = plain_network(loaded, donor, recipient, names)
    with torch.no_grad():
        output = network(torch.stack([inputs[place] for place in at]))
    truth = torch.stack([targets[place] for place in at])
    return float((output[:, 0] - truth).square().mean(dim=(1, 2)).double().mean())


@pytest.fixture
def swept(skip: TaskSpec, save, tmp_path: Path) -> tuple[SweepResult, Checkpoint, Checkpoint]:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    return sweep(donor, recipient, skip, run_dir=tmp_path / "run", screen="sample:4", **HOW), donor, recipient


def test_a_guess_is_the_drop_of_a_plain_loop_on_those_samples(swept, skip: TaskSpec, tmp_path: Path) -> None:
    result, donor, recipient = swept
    plan = RunFolder(tmp_path / "run").read_plan()
    first = list(plan.walk[0])
    assert len({plan.groups[at] for at in first}) == len(first) == 4
    baseline = errors(skip, donor, recipient, (), first)
    rows = [row for row in result.rows if row.status == "measured"]
    assert len(rows) > 8
    for row in rows:
        assert row.guess == errors(skip, donor, recipient, row.tensors, first) - baseline, row.tensors


def test_no_sample_is_scored_twice(swept, tmp_path: Path) -> None:
    result, *_ = swept
    plan, blocks = RunFolder(tmp_path / "run").read_plan(), written(tmp_path / "run")
    assert max(Counter(blocks).values()) == 1
    assert sorted(at for places in plan.walk for at in places) == list(range(result.samples))
    assert Counter(variant for variant, _ in blocks)[BASELINE] == len(plan.walk)
    assert all(row.samples == result.samples for row in result.rows if row.status == "measured")


def test_the_table_tells_how_well_it_told(swept, tmp_path: Path) -> None:
    result, *_ = swept
    told = result.screen
    assert told is not None
    assert (told.by, told.samples) == ("sample:4", 4)
    assert told.variants == sum(row.status == "measured" for row in result.rows)
    assert any(note.startswith("screen by sample:4 (4 of 20 samples): rank") for note in result.notes)
    assert load_result(tmp_path / "run") == result
    document = sweep_json(result)
    Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(json.loads(dump_json(document)))
    assert document["screen"] == asdict(told)
    assert [row["guess"] for row in document["rows"]] == [row.guess for row in result.rows]
    assert "screen by sample:4" in sweep_md(result)
    assert "screen by sample:4" in sweep_html(result, about(str(tmp_path / "run")))
    assert "guess" in sweep_csv(result).splitlines()[0].split(",")


def test_every_score_is_that_of_a_plain_loop_on_its_batches(swept, skip: TaskSpec) -> None:
    """The other samples are walked in their batches, without those that came first."""
    result, donor, recipient = swept
    task = load_task(replace(skip, screen_samples=4), recipient)
    row = result.rows[0]
    network, scores = plain_network(task, donor, recipient, row.tensors), np.zeros(task.samples)
    with torch.no_grad():
        for batch in task.batches():
            scores[batch.places] = (network(batch.inputs)[:, 0] - batch.targets).square().mean(dim=(1, 2)).double()
    assert row.score == scores.sum() / task.samples
    assert task.data.sizes == (4, 6, 6, 4)


def test_a_budget_takes_the_worst_first(skip: TaskSpec, save, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "FIRST_TURN", 2)
    how = HOW | {"run_dir": tmp_path / "run", "screen": "sample:4"}
    result = sweep(save(1, "Skip"), save(0, "Skip"), skip, budget=1e9, **how)
    plan = RunFolder(tmp_path / "run").read_plan()
    blocks = [(variant, batch) for variant, batch in written(tmp_path / "run") if variant != BASELINE]
    variants = len({variant for variant, _ in blocks})
    assert {batch for _, batch in blocks[:variants]} == {0}
    guess = {
        cell.variant: row.guess for cell in plan.plan.cells for row in result.rows if row.tensors == cell.names
    }
    known = {variant: value for variant, value in guess.items() if value is not None}
    worst = sorted(known, key=lambda variant: -known[variant])
    rest = [variant for variant, _ in blocks[variants:]]
    assert set(rest[:6]) == set(worst[:2])
    assert set(rest[6:18]) == set(worst[2:6])
    assert "the work goes by sample:4, the worst first" in result.notes
    plain = sweep(save(1, "Skip"), save(0, "Skip"), skip, **how | {"run_dir": tmp_path / "plain"})
    assert plain.rows == result.rows


def test_what_a_budget_leaves_rests_on_the_screens_samples(skip: TaskSpec, save, tmp_path: Path) -> None:
    """Then nothing tells how good the screen was; going on gives the table of a sweep that was never stopped."""
    planned = prepare(
        save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "run", selection=READ, screen="sample:4"
    )
    stopped = ran(planned, tolerance=0.01, budget=0.0)
    assert all((row.samples or 0) <= 4 for row in stopped.rows if row.status == "measured")
    said = "the budget of 0 s is used up, 5 of 64 blocks are done: the same command continues"
    assert any(said in note for note in planned.scorer.notes)
    assert (RunFolder(tmp_path / "run").read_plan().ended or "") in said
    [left] = [note for note in load_result(tmp_path / "run").notes if "the same command continues" in note]
    assert left.startswith("the budget of 0 s is used up, 5 of 64 blocks are done; ")
    page = sweep_html(stopped, about(str(tmp_path / "run")))
    assert "Not finished: the budget of 0 s is used up, 5 of 64 blocks are done. The same command goes on" in page
    assert stopped.screen is not None
    assert (stopped.screen.variants, stopped.screen.auc, stopped.screen.spearman) == (0, None, None)
    assert any("nothing is scored yet that it could be held against" in note for note in stopped.notes)
    whole = ran(planned, tolerance=0.01)
    fresh = sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "other", screen="sample:4", **HOW)
    assert whole.rows == fresh.rows
    assert RunFolder(tmp_path / "run").read_plan().ended is None
    assert "Not finished" not in sweep_html(whole, about(str(tmp_path / "run")))


def test_workers_give_the_same_table_in_that_order_too(skip: TaskSpec, save, tmp_path: Path) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    alone = sweep(donor, recipient, skip, run_dir=tmp_path / "alone", screen="sample:4", budget=1e9, **HOW)
    two = executor_of(RunOptions(jobs=2), skip)
    shared = sweep(
        donor, recipient, skip, run_dir=tmp_path / "two", screen="sample:4", budget=1e9, executor=two, **HOW
    )
    assert shared.rows == alone.rows
    assert shared.screen == alone.screen


def test_a_race_begins_with_them(skip: TaskSpec, save, tmp_path: Path) -> None:
    how = {"selection": READ, "screen": "sample:4", "tolerance": 0.01}
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    exact = sweep(donor, recipient, skip, run_dir=tmp_path / "exact", **how)
    raced = sweep(donor, recipient, skip, run_dir=tmp_path / "raced", top=2, **how)
    assert [row.tensors for row in raced.rows[:2]] == [row.tensors for row in exact.rows[:2]]
    assert raced.rows[0].drop == exact.rows[0].drop


def test_scores_of_another_walk_are_not_taken(swept, skip: TaskSpec, tmp_path: Path) -> None:
    _, donor, recipient = swept
    with pytest.raises(RunError, match="screen_samples was 4, is None"):
        sweep(donor, recipient, skip, run_dir=tmp_path / "run", **HOW)


@pytest.mark.parametrize("count", [20, 21, 999_999_999])
def test_more_than_there_is_is_one_sentence(skip: TaskSpec, save, tmp_path: Path, count: int) -> None:
    with pytest.raises(UsageError, match=rf"sample:{count} is no part of 20 samples: give fewer than 20"):
        sweep(save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "run", screen=f"sample:{count}", **HOW)
    assert not (tmp_path / "run").exists()


def test_ready_made_batches_come_whole(skip: TaskSpec, save, own: Path, tmp_path: Path) -> None:
    own.write_text(own.read_text() + MADE)
    task = replace(skip, data=f"{own}:made")
    result = sweep(save(1, "Skip"), save(0, "Skip"), task, run_dir=tmp_path / "run", screen="sample:4", **HOW)
    assert result.screen is not None
    assert result.screen.samples == 5
