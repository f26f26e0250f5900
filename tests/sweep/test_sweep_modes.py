"""What a part takes from which donor, half-way points and new statistics, each against a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import plain_network
from sweeping import prepare, sweep
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, RunError, SelectionError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.scoring.variant import Calibration
from ckptswap.selection import Selection
from ckptswap.sweep.analysis import load_result
from ckptswap.sweep.layers import layer_order
from ckptswap.sweep.preparing import executor_of
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.run_folder.journal import decode, journal_files
from ckptswap.sweep.spec import RunOptions
from ckptswap.task import TaskSpec, load_task
from ckptswap.transplant import plan_transplant, transplant

ORDER = ["stem", "norm", "inner.0", "inner.1", "head"]
"""In which the model's forward calls its layers; `unused` is never called."""
READ = Selection.parse(exclude=["unused.*", "*.num_batches_tracked"])
State = Mapping[str, Tensor]


def state_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return torch.load(checkpoint.path, weights_only=True)


def error_of(
    spec: TaskSpec, recipient: Checkpoint, state: State, prepare: Callable = lambda network: None
) -> float:
    """The mean squared error of a network with this state, by plain forward passes."""
    task = load_task(spec, recipient)
    network = plain_network(task, recipient, recipient, ())
    network.load_state_dict(dict(state))
    prepare(network)
    network.eval()
    found: list[float] = []
    with torch.no_grad():
        for batch in task.batches():
            found += (network(batch.inputs)[:, 0] - batch.targets).square().mean(dim=(1, 2)).tolist()
    return float(np.mean(found))


def taken(recipient: Checkpoint, donor: Checkpoint, names: Iterable[str]) -> dict[str, Tensor]:
    return state_of(recipient) | {name: state_of(donor)[name] for name in names}


def by_cell(result: SweepResult) -> dict[tuple[str | None, str | None, int], Row]:
    return {(row.layer, row.kind, row.donor): row for row in result.rows}


@pytest.fixture
def pair(save) -> tuple[Checkpoint, Checkpoint]:
    return save(1, "Skip"), save(0, "Skip")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


# Modes ----------------------------------------------------------------------------------------------------------


def test_layers_are_in_the_order_of_the_forward_pass(skip: TaskSpec, pair) -> None:
    assert layer_order(load_task(skip, pair[1]), pair[1]) == [*ORDER, "unused"]


@pytest.mark.parametrize("engine", ["replay", "full"])
@pytest.mark.parametrize("way", [("layer",), ("layer", "kind"), ("kind",)])
@pytest.mark.parametrize("mode", ["all-but", "prefix", "suffix"])
def test_a_mode_is_that_of_a_plain_loop(skip: TaskSpec, pair, run: Path, mode, way, engine) -> None:
    donor, recipient = pair
    how = {"selection": READ, "by": [way], "mode": mode, "run_dir": run, "engine": engine, "tolerance": 0.001}
    if mode != "all-but" and way == ("kind",):
        with pytest.raises(UsageError, match="adds layer to layer"):
            sweep(donor, recipient, skip, **how)
        return
    result = sweep(donor, recipient, skip, **how)
    everything = [entry for entry in recipient.values() if entry in READ]
    cells = {(e.layer if "layer" in way else None, e.kind if "kind" in way else None) for e in everything}
    assert {(row.layer, row.kind) for row in result.rows} == cells
    for row in result.rows:
        here = [e for e in everything if row.layer in (None, e.layer) and row.kind in (None, e.kind)]
        if mode == "all-but":
            names = [e.name for e in everything if e not in here]
        else:
            assert row.layer is not None
            at = ORDER.index(row.layer)
            layers = ORDER[: at + 1] if mode == "prefix" else ORDER[at:]
            names = [e.name for e in everything if e.layer in layers and row.kind in (None, e.kind)]
        assert sorted(row.tensors) == sorted(names)
        score = error_of(skip, recipient, taken(recipient, donor, names))
        assert row.score == pytest.approx(score, rel=1e-6)
        assert row.drop == pytest.approx(score - result.baseline, abs=1e-7)


def test_a_mode_that_makes_no_sense_of_tensors(skip: TaskSpec, pair) -> None:
    with pytest.raises(UsageError, match="goes by layers or kinds"):
        prepare(*pair, skip, by=[("tensor",)], mode="all-but")


# Donors ---------------------------------------------------------------------------------------------------------


def test_several_donors_make_one_table(skip: TaskSpec, save, run: Path) -> None:
    recipient, donors = save(0, "Skip"), [save(1, "Skip"), save(2, "Skip")]
    result = sweep(donors, recipient, skip, selection=READ, by=[("kind",)], run_dir=run, tolerance=0.001)
    assert [each.path for each in result.donors] == [each.path for each in donors]
    for each, donor in zip(result.donors, donors, strict=True):
        assert each.score == pytest.approx(error_of(skip, recipient, state_of(donor)), rel=1e-6)
    assert result.donor_score == result.donors[0].score
    kinds = {entry.kind for entry in recipient.values() if entry in READ}
    assert by_cell(result).keys() == {(None, kind, at) for kind in kinds for at in (0, 1)}
    for row in result.rows:
        score = error_of(skip, recipient, taken(recipient, donors[row.donor], row.tensors))
        assert row.score == pytest.approx(score, rel=1e-6)
    measured = [row for row in result.rows if row.status == "measured"]
    assert [row.rank for row in measured] == list(range(1, len(measured) + 1))
    assert [row.drop for row in measured] == sorted((row.drop for row in measured), reverse=True)


def test_the_first_of_several_donors_scores_as_alone(skip: TaskSpec, save, run: Path) -> None:
    recipient, donors = save(0, "Skip"), [save(1, "Skip"), save(2, "Skip")]
    both = by_cell(sweep(donors, recipient, skip, run_dir=run, tolerance=0.001))
    alone = by_cell(sweep(donors[0], recipient, skip, run_dir=run.with_name("alone"), tolerance=0.001))
    assert alone
    assert {place: row.score for place, row in alone.items()} == {
        place: row.score for place, row in both.items() if place[2] == 0
    }


def test_another_donor_is_another_run(skip: TaskSpec, save, run: Path) -> None:
    recipient, donors = save(0, "Skip"), [save(1, "Skip"), save(2, "Skip")]
    sweep(donors[0], recipient, skip, run_dir=run, tolerance=0.001)
    with pytest.raises(RunError, match="donor changed"):
        sweep(donors, recipient, skip, run_dir=run, tolerance=0.001)


# Paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["replay", "full"])
def test_a_path_is_that_of_a_plain_loop(skip: TaskSpec, pair, run: Path, engine) -> None:
    donor, recipient = pair
    alphas = (0.0, 0.25, 0.5, 1.0)
    result = sweep(
        donor, recipient, skip, selection=READ, by=[("layer",)], alphas=alphas, run_dir=run, engine=engine,
        tolerance=0.001,
    )  # fmt: skip
    ours, theirs = state_of(recipient), state_of(donor)
    assert len(result.rows) == len(ORDER)
    for row in result.rows:
        assert [point.alpha for point in row.path] == [0.25, 0.5]
        heights = {}
        for point in row.path:
            between = {name: torch.lerp(ours[name], theirs[name], point.alpha) for name in row.tensors}
            score = error_of(skip, recipient, ours | between)
            assert point.score == pytest.approx(score, rel=1e-5)
            assert point.drop == pytest.approx(score - result.baseline, abs=1e-7)
            heights[point.alpha] = score - (1 - point.alpha) * result.baseline - point.alpha * row.score
        assert row.barrier is not None
        assert row.barrier.alpha == max(heights, key=heights.__getitem__)
        assert row.barrier.height == pytest.approx(max(heights.values()), abs=1e-7)
        assert row.barrier.ci_low is not None
        assert row.barrier.ci_low <= row.barrier.height <= row.barrier.ci_high


def test_a_point_has_the_bits_that_transplant_writes(skip: TaskSpec, pair, tmp_path: Path) -> None:
    donor, recipient = pair
    proposal = prepare(donor, recipient, skip, selection=READ, by=[("layer",)], alphas=[0.3])
    half = next(each for each in proposal.variants if each.alpha == 0.3)
    out = tmp_path / "half.safetensors"
    transplant(plan_transplant(donor, recipient, Selection.exactly(half.names), alpha=0.3), out)
    with open_checkpoint(out) as written:
        for name, value in proposal.scorer.written(half).items():
            assert value.numpy().tobytes() == written.read(name).tobytes()


def test_points_are_added_to_a_run_that_is_there(skip: TaskSpec, pair, run: Path) -> None:
    how = {"selection": READ, "by": [("layer",)], "run_dir": run, "tolerance": 0.001}
    plain = sweep(*pair, skip, **how)
    before = sum(path.read_bytes().count(b"\n") for path in journal_files(run))
    again = sweep(*pair, skip, alphas=[0.5], **how)
    assert [replace(row, path=(), barrier=None) for row in again.rows] == list(plain.rows)
    batches = 4
    after = [decode(line) for path in journal_files(run) for line in path.read_bytes().splitlines(True)[1:]]
    assert len(after) - (before - len(journal_files(run))) in (batches * len(ORDER), batches * len(ORDER) + 1)


# New statistics -------------------------------------------------------------------------------------------------


@pytest.fixture
def calibration(own: Path) -> Calibration:
    """Images that `data` does not give: those behind its first twenty."""
    own.write_text(own.read_text() + "\n\ndef others(samples=24):\n    return data(20 + samples)[20:]\n")
    return Calibration(3, f"{own}:others")


def test_new_statistics_are_those_of_update_bn(skip: TaskSpec, pair, run: Path, calibration) -> None:
    donor, recipient = pair
    how = {"selection": READ, "by": [("layer",), ("kind",)], "run_dir": run, "tolerance": 0.001}
    how |= {"zero_control": False}  # of twice as many variants fewer than a tenth could be controls
    result = sweep(donor, recipient, skip, calibration=calibration, **how)
    batches = list(calibration_batches(skip, recipient, calibration))
    assert len(batches) == 3

    def anew(network: nn.Module) -> None:
        update_bn(batches, network)

    baseline = error_of(skip, recipient, state_of(recipient), anew)
    assert result.recalibrated_baseline == pytest.approx(baseline, rel=1e-6)
    assert abs(baseline - result.baseline) > 1e-4
    for row in result.rows:
        again = row.recalibrated
        assert again is not None
        if row.kind in ("bn.running_mean", "bn.running_var"):
            assert (again.drop, again.score, again.verdict) == (None, None, None)
            assert "not applicable" in (again.reason or "")
            continue
        score = error_of(skip, recipient, taken(recipient, donor, row.tensors), anew)
        assert again.score == pytest.approx(score, rel=1e-5)
        assert again.drop == pytest.approx(score - baseline, abs=1e-6)
        assert again.ci_low is not None
        assert again.ci_low <= again.drop <= again.ci_high
    plain = sweep(donor, recipient, skip, **how | {"run_dir": run.with_name("plain")})
    assert [replace(row, recalibrated=None) for row in result.rows] == list(plain.rows)


def calibration_batches(spec: TaskSpec, recipient: Checkpoint, calibration: Calibration) -> Iterable[Tensor]:
    task = load_task(replace(spec, data=calibration.data, target="masks"), recipient)
    for number, batch in enumerate(task.batches()):
        if number < calibration.batches:
            yield batch.inputs


def test_the_model_is_afterwards_as_it_was(skip: TaskSpec, pair, calibration) -> None:
    proposal = prepare(*pair, skip, selection=READ, by=[("layer",)], calibration=calibration)
    model = proposal.task.model
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    momenta = [norm.momentum for norm in norms]
    again = [each for each in proposal.variants if each.recalibrated]
    assert len(again) == 1 + len(ORDER)
    for variant in again:
        proposal.scorer.written(variant)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert [norm.momentum for norm in norms] == momenta
    assert not any(module.training for module in model.modules())


def test_a_layer_that_is_nothing_but_statistics_has_no_new_ones(
    skip: TaskSpec, pair, run: Path, calibration
) -> None:
    selection = Selection.parse(only=["bn.running_*"])
    result = sweep(
        *pair, skip, selection=selection, by=[("layer",)], run_dir=run, calibration=calibration, tolerance=0.01
    )
    assert [row.recalibrated.drop for row in result.rows if row.recalibrated] == [None, None]


def test_statistics_of_single_values_are_refused_before_any_work(
    skip: TaskSpec, own: Path, save, run: Path, calibration
) -> None:
    """One pixel and one sample: torch has no variance of it."""
    own.write_text(own.read_text() + ONE)
    spec = replace(skip, model=f"{own}:Pooled", batch_size=1)
    with pytest.raises(ModelError, match="cannot estimate"):
        prepare(save(1, "Skip"), save(0, "Skip"), spec, calibration=calibration, run_dir=run)


def test_a_failing_estimate_is_told_and_counted(skip: TaskSpec, own: Path, save, run: Path, calibration) -> None:
    """In training mode this model takes no stem that has been swapped; in eval mode it does."""
    own.write_text(own.read_text() + PICKY)
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    spec = replace(skip, model=f"{own}:Picky")
    result = sweep(
        donor, recipient, spec, selection=Selection.parse(only=["*.bias"]), by=[("layer",)], run_dir=run,
        calibration=calibration, tolerance=0.01,
    )  # fmt: skip
    rows = {row.layer: row for row in result.rows}
    assert rows["stem"].drop is not None
    assert rows["stem"].recalibrated is not None
    assert "no such stem" in (rows["stem"].recalibrated.reason or "")
    assert rows["head"].recalibrated is not None
    assert rows["head"].recalibrated.drop is not None
    assert result.failed == 1
    assert any("1 of 6 scores beside the rows failed" in note for note in result.notes)


ONE = """

class Pooled(Skip):
    def forward(self, x):
        return super().forward(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
"""
PICKY = """

class Picky(Skip):
    def forward(self, x):
        if not hasattr(self, "seen"):
            self.seen = self.stem.bias[0].item()
        if self.norm.training and self.stem.bias[0].item() != self.seen:
            raise RuntimeError("no such stem in training")
        return super().forward(x)
"""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batches": 5}, "4 batches of 6, fewer than 5"),
        ({"batches": 0}, "1 or more"),
        ({"data": None}, "needs data that is not scored"),
        ({"data": "scored"}, "18 of the scored samples are also in the calibration data"),
    ],
)
def test_calibration_that_makes_no_sense(skip: TaskSpec, pair, calibration, changed, words) -> None:
    if changed.get("data") == "scored":
        changed = {"data": skip.data}
    with pytest.raises(UsageError, match=words):
        prepare(*pair, skip, calibration=replace(calibration, **changed))


def test_a_model_without_batch_norm_has_nothing_to_estimate(spec: TaskSpec, own: Path, save, calibration) -> None:
    task = replace(spec, model=f"{own}:Tied")
    with pytest.raises(UsageError, match="no batch norm"):
        prepare(save(1, "Tied"), save(0, "Tied"), task, calibration=calibration)


# Elsewhere ------------------------------------------------------------------------------------------------------


def test_workers_make_the_same_donors_and_statistics(skip: TaskSpec, pair, run: Path, calibration) -> None:
    from ckptswap.sweep.donors import open_donor

    donor, recipient = pair
    donors = [donor, open_donor("shuffle:1", recipient, skip), open_donor("init:2", recipient, skip)]
    how = {
        "selection": READ, "by": [("layer",)], "alphas": [0.5], "calibration": calibration, "tolerance": 0.001,
    }  # fmt: skip
    here = sweep(donors, recipient, skip, run_dir=run, **how)
    there = sweep(
        donors,
        recipient,
        skip,
        run_dir=run.with_name("jobs"),
        executor=executor_of(RunOptions(jobs=2), skip),
        **how,
    )
    assert there == here
    assert load_result(run) == here


def test_a_race_scores_nothing_beside(skip: TaskSpec, pair, run: Path) -> None:
    with pytest.raises(UsageError, match="scores no paths"):
        sweep(*pair, skip, alphas=[0.5], top=1, run_dir=run, tolerance=0.001)


def test_the_whole_selection_is_one_variant(skip: TaskSpec, pair, run: Path) -> None:
    donor, recipient = pair
    selection = Selection.parse(only=["conv.bias", "bn.running_mean"], exclude=["unused.*"])
    result = sweep(
        donor, recipient, skip, selection=selection, by=[("kind",), ("all",)], run_dir=run, tolerance=0.001
    )
    (whole,) = (row for row in result.rows if row.kind is None)
    parts = [row for row in result.rows if row.kind is not None]
    assert sorted(whole.tensors) == sorted(name for row in parts for name in row.tensors)
    assert whole.layer is None
    assert whole.score == pytest.approx(
        error_of(skip, recipient, taken(recipient, donor, whole.tensors)), rel=1e-6
    )
    with pytest.raises(SelectionError, match="stands alone"):
        prepare(donor, recipient, skip, by=[("all", "kind")])
