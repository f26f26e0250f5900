"""The set that `select` finds, held against a plain loop."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweeping import sweep
from test_sweep_modes import READ, error_of, state_of

from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.sweep.donors import open_donor
from ckptswap.sweep.select import Choice, commands, select
from ckptswap.task import TaskSpec


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
