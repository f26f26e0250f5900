"""Accuracy on 16 samples: what never flipped is not reusable for that, and on 512 some of it does harm.

A small classifier and a donor that is a little apart from it, swept by tensor on few samples; every row is held
against a plain loop (load_state_dict, the whole model) on many samples of the same sort. Relatives: a set that
`select` makes of such cells; `evaluate` where all is right; a metric without a bound; more samples that do tell.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from sweeping import sweep

from ckptswap.formats import open_checkpoint
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.select import select
from ckptswap.task import TaskSpec
from ckptswap.task.comparison import compare
from ckptswap.task.evaluate import evaluate
from ckptswap.task.threads import pinned_threads

SOURCE = '''
import torch
from torch import nn


class Net(nn.Module):
    """Eight small residual blocks of which each adds some, so that a swap flips next to nothing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(2, 16)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        y = self.stem(x)
        for block in self.blocks:
            y = y + 0.5 * torch.tanh(block(y))
        return self.head(y)[..., None, None]


def samples(count, first=0):
    draw = torch.Generator().manual_seed(3)
    points = torch.randn(4096, 2, generator=draw)
    labels = (points[:, 0] + 0.7 * points[:, 1] > 0).long()
    return [(points[at], labels[at].reshape(1, 1)) for at in range(first, first + count)]


def few():
    return samples(16)


def many():
    return samples(2048, 16)


def margin(output, target):
    right = output.flatten(1).gather(1, target.flatten(1))[:, 0]
    return right.clamp(max=1e-6).double()


margin.direction = "max"
'''


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipient that was trained on others of the same points, and a donor that was trained a little on."""
    folder = tmp_path_factory.mktemp("flips")
    (folder / "net.py").write_text(SOURCE)
    space: dict = {}
    exec(SOURCE, space)
    torch.manual_seed(0)
    net = space["Net"]()
    points = space["samples"](400, 3000)
    x, y = torch.stack([each[0] for each in points]), torch.stack([each[1] for each in points]).flatten()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    with pinned_threads(1):
        for step in range(160):
            if step == 150:
                torch.save(net.state_dict(), folder / "recipient.pt")
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x).flatten(1), y).backward()
            optimizer.step()
    state = {name: value + 0.3 * torch.randn(value.shape) for name, value in net.state_dict().items()}
    torch.save(state, folder / "donor.pt")
    return folder


def task(folder: Path, data: str = "few", metric: str = "accuracy") -> TaskSpec:
    metric = metric if metric == "accuracy" else f"{folder / 'net.py'}:{metric}"
    return TaskSpec(
        model=f"{folder / 'net.py'}:Net", data=f"{folder / 'net.py'}:{data}", metrics=(metric,), threads=1
    )


def swept(folder: Path, run: Path, spec: TaskSpec, tolerance: float = 0.01) -> SweepResult:
    donor, recipient = (open_checkpoint(folder / f"{name}.pt") for name in ("donor", "recipient"))
    return sweep(donor, recipient, spec, by=[("tensor",)], run_dir=run, tolerance=tolerance)


def plain_drops(folder: Path, data: str) -> dict[tuple[str, ...], float]:
    """How much accuracy each tensor's swap costs: load both, copy one tensor, load_state_dict, the whole model."""
    space: dict = {}
    exec(SOURCE, space)
    points = space[data]()
    x, y = torch.stack([each[0] for each in points]), torch.stack([each[1] for each in points]).flatten()
    recipient, donor = (torch.load(folder / f"{name}.pt", weights_only=True) for name in ("recipient", "donor"))
    net = space["Net"]()

    def accuracy(state: dict[str, torch.Tensor]) -> float:
        net.load_state_dict(state)
        with torch.no_grad():
            return (net(x).flatten(1).argmax(1) == y).double().mean().item()

    before = accuracy(recipient)
    return {(name,): before - accuracy({**recipient, name: donor[name]}) for name in recipient}


def test_what_never_flipped_on_16_is_undecided_and_no_verdict_is_contradicted_on_2048(
    pair, tmp_path: Path
) -> None:
    result = swept(pair, tmp_path / "run", task(pair))
    few, many = plain_drops(pair, "few"), plain_drops(pair, "many")
    rows = {row.tensors: row for row in result.rows}
    assert len(rows) == 20
    assert {names: row.drop for names, row in rows.items()} == pytest.approx(few)
    idle = [names for names, drop in few.items() if drop == 0]
    harmful = [names for names in idle if many[names] > 0.01]
    assert len(idle) >= 12, "a bootstrap would call all of these 0 ±0, reusable"
    assert len(harmful) >= 3, "and these lose more than the tolerance"
    for names, row in rows.items():
        assert row.verdict != "reusable"
        if row.verdict == "sensitive":
            assert many[names] > 0.01
    bound = scipy_stats.beta.ppf(1 - 0.025 / 20, 1, 16)
    needed = int(np.ceil(np.log(0.025 / 20) / np.log(1 - 0.01)))
    for row in (rows[names] for names in idle):
        assert row.verdict == "undecided"
        assert row.sim_high == pytest.approx(bound)
        assert row.ci_high == pytest.approx(scipy_stats.beta.ppf(0.975, 1, 16))
        assert row.reason == (
            f"moved in 0 of 16 groups: a drop of up to {bound:.3g} is possible; {needed} such groups would tell"
        )
        assert many[row.tensors] < row.sim_high
    assert any(f"{needed} groups or more would tell" in note for note in result.notes)


def test_with_as_many_samples_as_it_asks_for_it_tells(pair: Path, tmp_path: Path) -> None:
    result = swept(pair, tmp_path / "run", task(pair, "many"))
    truth = plain_drops(pair, "many")
    reusable = [row for row in result.rows if row.verdict == "reusable"]
    assert [row for row in reusable if truth[row.tensors] == 0], "what never moved, too"
    assert all(truth[row.tensors] < 0.01 for row in reusable)
    assert all(row.reason is None for row in reusable)


def test_select_takes_nothing_that_never_flipped(pair: Path, tmp_path: Path) -> None:
    result = swept(pair, tmp_path / "run", task(pair))
    choice = select(tmp_path / "run")
    assert choice.taken == ()
    assert len(choice.left) == len(result.rows)
    assert (choice.drop.estimate, choice.drop.low, choice.drop.high) == (0.0, None, None)
    wide = select(tmp_path / "run", tolerance=0.45)
    assert wide.taken, "where even the exact bound is within the tolerance"
    assert wide.drop.high is not None
    assert wide.drop.high < 0.45


def test_select_on_fewer_than_eight_groups_takes_nothing(pair: Path, tmp_path: Path) -> None:
    result = swept(pair, tmp_path / "run", replace(task(pair), limit=7))
    choice = select(tmp_path / "run")
    assert (choice.taken, len(choice.left)) == ((), len(result.rows))


def test_a_metric_without_a_bound_is_undecided_whatever_the_number(pair: Path, tmp_path: Path) -> None:
    """One that hardly ever moves, and never for many tensors."""
    result = swept(pair, tmp_path / "run", task(pair, metric="margin"), tolerance=1.0)
    still = [row for row in result.rows if row.drop == 0]
    assert still
    for row in still:
        assert (row.ci_low, row.ci_high, row.sim_low, row.sim_high) == (None,) * 4
        assert row.verdict == "undecided"
        assert row.reason is not None
        assert row.reason.endswith("margin has no bound, so that no number of groups would tell")


def test_all_right_on_16_is_not_certainty(pair: Path) -> None:
    recipient, donor = (open_checkpoint(pair / f"{name}.pt") for name in ("recipient", "donor"))
    found = compare(evaluate([recipient, recipient, donor], task(pair)))
    right = round(found.scores[0]["accuracy"].estimate * 16)
    for score in (each["accuracy"] for each in found.scores):
        exact = scipy_stats.binomtest(round(score.estimate * 16), 16).proportion_ci(0.95, method="exact")
        assert (score.low, score.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert right >= 15
    same = found.differences[0].interval
    assert (same.estimate, same.high) == (0.0, pytest.approx(scipy_stats.beta.ppf(0.975, 1, 16)))
    assert same.low == -same.high
