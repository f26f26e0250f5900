"""Metrics that only a whole set has a value of: the library's own number, a jackknife over groups, and whose code
may be run for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sweeping import plan_json
from torchmetrics.classification import MulticlassF1Score

import ckptswap as cs
from ckptswap.errors import CkptswapError, MetricError
from ckptswap.report.sweep import sweep_json
from ckptswap.statistics import intervals
from ckptswap.statistics.totals import mean
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.sealed import sealed

F1 = "torchmetrics:F1Score:average=macro"
GROUPS = np.arange(60) // 3


def net(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    """A run by F1 of three classes, and by two metrics more, on 60 samples in 20 groups."""
    folder = tmp_path_factory.mktemp("sets")
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    np.savez(folder / "data.npz", x=x.numpy(), y=net(1)(x).argmax(1).numpy(), groups=GROUPS)
    for seed in (0, 1):
        torch.save(net(seed).state_dict(), folder / f"{seed}.pt")
    (folder / "own.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), "
        "torch.nn.Linear(7, 3))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = cs.sweep(
            "0.pt", "1.pt", model="own.py:net", data="npz:data.npz", metric=[F1, "torchmetrics:Accuracy", "loss"],
            by="tensor", threads=1, run="run", batch_size=7,
        )  # fmt: skip
    return folder, result


def by_library(model: torch.nn.Module, folder: Path, kept: np.ndarray) -> float:
    data = np.load(folder / "data.npz")
    with torch.no_grad():
        output = model(torch.from_numpy(data["x"]))[torch.from_numpy(kept)]
    scorer = MulticlassF1Score(3, average="macro")
    return float(scorer(output.double().softmax(1), torch.from_numpy(data["y"])[torch.from_numpy(kept)]))


def variant(row: Row) -> torch.nn.Module:
    model, donor = net(1), net(0).state_dict()
    model.load_state_dict({**model.state_dict(), **{name: donor[name] for name in row.tensors}})
    return model


def test_scores_are_the_librarys_of_all_data_and_intervals_are_of_leaving_groups_out(swept) -> None:
    folder, result = swept
    every = np.ones(60, bool)
    assert result.baseline == pytest.approx(by_library(net(1), folder, every), abs=1e-7)
    assert {row.status for row in result.rows} == {"measured"}
    for row in result.rows[:2]:
        drops = []
        for kept in (every, *(group != GROUPS for group in range(20))):
            drops.append(by_library(net(1), folder, kept) - by_library(variant(row), folder, kept))
        assert row.drop == pytest.approx(drops[0], abs=1e-7)
        pseudo = 20 * drops[0] - 19 * np.array(drops[1:])
        pseudo += drops[0] - pseudo.mean()
        plain = intervals.interval(pseudo[:, None], np.arange(20), mean)
        np.testing.assert_allclose((row.ci_low, row.ci_high), (plain.low, plain.high), atol=1e-6)
    assert any(note.startswith(f"{F1}: one value for the whole set") for note in result.notes)


def test_the_other_metrics_stand_beside_it(swept) -> None:
    document = sweep_json(swept[1])
    assert [metric["name"] for metric in document["metrics"]] == [F1, "torchmetrics:Accuracy", "loss"]
    for row in document["rows"]:
        assert row["metrics"]["torchmetrics:Accuracy"]["drop"] is not None


def test_its_code_runs_for_ones_own_folder_or_where_it_is_named_again(swept, tmp_path: Path) -> None:
    folder, result = swept
    assert cs.report(folder / "run").rows == result.rows
    strange = Path(shutil.copytree(folder / "run", tmp_path / "strange"))
    RunFolder(strange).plan_path.write_text(sealed(plan_json(strange)))  # marked by nobody
    with pytest.raises(MetricError, match=f"valued by code that this run names.*--metric {F1}"):
        cs.report(strange)
    assert cs.report(strange, metric=F1).rows == result.rows
    by_loss = cs.report(strange, metric="loss")
    assert [other.name for other in by_loss.others] == ["torchmetrics:Accuracy"]
    assert any(note.startswith(f"{F1} is not shown") for note in by_loss.notes)


def test_a_recipient_without_a_value_leaves_no_folder(swept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept[0])
    x = np.load("data.npz")["x"]
    np.savez("same.npz", x=x, y=np.zeros((60, 3), np.float32), groups=GROUPS)
    task = {"model": "own.py:net", "data": "npz:same.npz", "metric": "torchmetrics:SpearmanCorrCoef", "threads": 1}
    with pytest.raises(CkptswapError, match="SpearmanCorrCoef"):
        cs.sweep("0.pt", "1.pt", direction="max", run="none", **task)
    assert not Path("none").exists()
