"""The set that `select` finds, held against a plain loop."""

from __future__ import annotations

import hashlib
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import plain_network
from sweeping import sweep
from test_sweep_modes import READ, error_of, state_of

from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.sweep.analysis import analysed
from ckptswap.sweep.donors import open_donor
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.sweep.select import Choice, commands, select
from ckptswap.task import TaskSpec, load_task


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_the_whole_is_scored_and_stays_within(skip: TaskSpec, save, run: Path) -> None:
    """Of two donors, each cell from the one that was chosen; what is left would not have fitted when tried."""
    recipient, donors = save(0, "Skip"), [save(1, "Skip"), save(2, "Skip")]
    result = sweep(donors, recipient, skip, selection=READ, run_dir=run, tolerance=0.001)
    seen: list[tuple[int, int]] = []
    limit = sorted(row.drop for row in result.rows if row.drop is not None)[len(result.rows) // 3]
    choice = select(run, tolerance=max(limit, 1e-4), progress=lambda done, total: seen.append((done, total)))
    assert 0 < len(choice.taken) < len(choice.taken) + len(choice.left) == seen[-1][1] == seen[-1][0]
    state = state_of(recipient)
    for row in choice.taken:
        state |= {name: state_of(donors[row.donor])[name] for name in row.tensors}
    score = error_of(skip, recipient, state)
    assert choice.score == pytest.approx(score, rel=1e-6)
    assert choice.drop.estimate == pytest.approx(score - result.baseline, abs=1e-7)
    assert choice.drop.high is not None
    assert choice.drop.high < choice.tolerance


def test_a_wide_tolerance_takes_all_in_one_go(skip: TaskSpec, save, run: Path) -> None:
    sweep(save(1, "Skip"), save(0, "Skip"), skip, selection=READ, run_dir=run, tolerance=0.001)
    choice = select(run, tolerance=1e6)
    assert choice.left == ()
    assert choice.evaluations == 3, "nothing, everything, and everything again for its score"


def test_without_labels_it_is_held_against_the_recipient(skip: TaskSpec, save, run: Path) -> None:
    """Not against itself, which would always cost nothing."""
    unlabelled = replace(skip, metrics=("output-mse",))
    whole = sweep(save(1, "Skip"), save(0, "Skip"), unlabelled, by=[("all",)], run_dir=run, tolerance=1e6)
    choice = select(run)
    assert whole.rows[0].drop
    assert choice.drop.estimate == pytest.approx(whole.rows[0].drop, rel=1e-6)
    assert choice.taken


def test_the_finest_split_is_chosen_from(skip: TaskSpec, save, run: Path) -> None:
    by = [("kind",), ("layer", "kind")]
    sweep(save(1, "Skip"), save(0, "Skip"), skip, selection=READ, by=by, run_dir=run, tolerance=0.001)
    choice = select(run, tolerance=1e6)
    names = [name for row in choice.taken for name in row.tensors]
    assert len(names) == len(set(names))
    assert all(row.layer is not None for row in choice.taken)


DEEP = """

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(12, 12, num_layers=2, batch_first=True)
        self.head = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.head(self.rnn(x[:, 0])[0][:, None])
"""


@pytest.mark.parametrize("by", [[("tensor",), ("layer", "kind")], [("kind",), ("layer", "kind")]])
def test_a_tensor_is_never_chosen_twice(skip: TaskSpec, own: Path, run: Path, by: list[tuple[str, ...]]) -> None:
    """Where ways of splitting overlap, one is chosen from: the one with most cells."""
    own.write_text(own.read_text() + DEEP)
    spec = replace(skip, model=f"{own}:Deep", metrics=(f"{own}:error",))
    pair = []
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(runpy.run_path(str(own))["Deep"]().state_dict(), run.with_name(f"{seed}.pt"))
        pair.append(open_checkpoint(run.with_name(f"{seed}.pt")))
    sweep(pair[1], pair[0], spec, by=by, run_dir=run, tolerance=0.001)  # type: ignore[arg-type]
    choice = select(run, tolerance=1e6)
    names = [name for row in choice.taken for name in row.tensors]
    assert sorted(names) == sorted(pair[0])
    assert (choice.unscored, choice.same) == (0, 0)
    assert choice.numel == sum(entry.numel for entry in pair[0].values())


def test_a_donor_that_is_no_file_gives_nothing(skip: TaskSpec, save, run: Path) -> None:
    """Though it would do least: it is the recipient's own state, but for what rounding does."""
    recipient = save(0, "Skip")
    made = open_donor("noise:0.000001", recipient, skip)
    sweep([made, save(1, "Skip")], recipient, skip, selection=READ, run_dir=run, tolerance=0.001)
    choice = select(run, tolerance=1e6)
    assert {row.donor for row in choice.taken} == {1}
    assert choice.unscored == 0
    assert len(commands(choice, "out.safetensors")) == 1


def test_without_a_file_it_is_refused_before_any_work(skip: TaskSpec, save, run: Path) -> None:
    recipient = save(0, "Skip")
    sweep(open_donor("zeros", recipient, skip), recipient, skip, selection=READ, run_dir=run, tolerance=0.001)
    with pytest.raises(RunError, match="has no donor that is a file"):
        select(run, tolerance=1e6, progress=lambda done, total: pytest.fail("a set was scored"))


def test_each_donor_has_its_command(skip: TaskSpec, save, run: Path) -> None:
    donors = [save(1, "Skip"), save(2, "Skip")]
    sweep(donors, save(0, "Skip"), skip, selection=READ, run_dir=run, tolerance=0.001)
    choice = select(run, tolerance=1e6)
    found = commands(choice, "out.safetensors")
    used = {row.donor for row in choice.taken}
    assert len(found) == len(used) == 2
    assert "-o out.part1.safetensors" in found[0]
    assert "--to out.part1.safetensors" in found[1]
    assert found[1].endswith("-o out.safetensors")


def test_another_checkpoint_by_now_is_refused(skip: TaskSpec, save, run: Path) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    sweep(donor, recipient, skip, selection=READ, run_dir=run, tolerance=0.001)
    other = save(5, "Skip")
    Path(donor.path).write_bytes(Path(other.path).read_bytes())
    with pytest.raises(RunError, match="donor changed"):
        select(run)


def test_it_is_repeated_alike(skip: TaskSpec, save, run: Path) -> None:
    sweep(save(1, "Skip"), save(0, "Skip"), skip, selection=READ, run_dir=run, tolerance=0.01)

    def found() -> Choice:
        return select(run, tolerance=0.01)

    assert found() == found()


# Half of the groups held out -----------------------------------------------------------------------------------


@pytest.fixture
def many(skip: TaskSpec, own: Path) -> TaskSpec:
    """The same task on 40 groups of one sample."""
    own.write_text(own.read_text().replace("samples=20, group=2", "samples=40, group=1"))
    return skip


def test_one_half_chooses_and_the_other_tells(many: TaskSpec, save, run: Path) -> None:
    """Against scores of the network itself: all that is told is of the half that did not choose."""
    recipient, donor = save(0, "Skip"), save(1, "Skip")
    result = sweep(donor, recipient, many, selection=READ, run_dir=run, tolerance=0.001)
    limit = max(sorted(row.drop for row in result.rows if row.drop is not None)[len(result.rows) // 2], 1e-4)
    whole, choice = select(run, tolerance=limit), select(run, tolerance=limit, holdout=True)
    assert choice.taken
    told = choice.holdout
    assert told is not None
    assert (told.chosen_on, told.reported_on, whole.holdout) == (20, 20, None)
    state = state_of(recipient) | {name: state_of(donor)[name] for row in choice.taken for name in row.tensors}
    errors = [sample_errors(many, recipient, scored) for scored in (state_of(recipient), state)]
    drawn = sorted(range(40), key=lambda at: hashlib.sha256(f"0 {at}".encode()).digest())
    halves = drawn[:20], drawn[20:]
    for half, drop in zip(halves, (told.drop, choice.drop), strict=True):
        before, after = (float(np.mean([own[at] for at in half])) for own in errors)
        assert drop.estimate == pytest.approx(after - before, rel=1e-4, abs=1e-7)
    assert (choice.baseline, choice.score) == pytest.approx((before, after), rel=1e-6)
    assert told.drop.high is not None
    assert told.drop.high < limit


def sample_errors(spec: TaskSpec, recipient, state) -> list[float]:
    """The error of each sample, in the data's own order."""
    task = load_task(spec, recipient)
    network = plain_network(task, recipient, recipient, ())
    network.load_state_dict(dict(state))
    network.eval()
    errors = [0.0] * task.samples
    with torch.no_grad():
        for batch in task.batches():
            apart = (network(batch.inputs)[:, 0] - batch.targets).square().mean(dim=(1, 2))
            for place, error in zip(batch.places.tolist(), apart.tolist(), strict=True):
                errors[place] = error
    return errors


def test_what_is_held_out_has_no_say(many: TaskSpec, save, run: Path) -> None:
    """Not even in the order in which cells are tried."""
    sweep(save(1, "Skip"), save(0, "Skip"), many, selection=READ, run_dir=run, tolerance=0.001)
    plan, blocks = RunFolder(run).read()
    changed = Blocks()
    for block in blocks.values():
        held = np.array(plan.walk[block.batch]) >= 20
        own = {
            name: np.where(held[:, None], 7 * of, of)
            for name, of in block.statistics.items()
            if len(of) == len(held)
        }
        changed.put(block._replace(statistics=own))
    choosing = np.arange(40) < 20
    tables = [analysed(ScoredRun.of(plan, every).only(choosing)).result.rows for every in (blocks, changed)]
    assert tables[0] == tables[1]
    assert {row.samples for row in tables[0]} == {20}


def test_too_few_groups_for_two_halves(skip: TaskSpec, save, run: Path) -> None:
    sweep(save(1, "Skip"), save(0, "Skip"), skip, selection=READ, run_dir=run, tolerance=0.001)
    with pytest.raises(RunError, match="has 10 groups of samples, and each half takes 8: leave --holdout out"):
        select(run, holdout=True, progress=lambda done, total: pytest.fail("a set was scored"))
