"""Results as pandas data frames (the extra `pandas`): the rows that JSON has, of which none is left out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff
from ckptswap.registry import library
from ckptswap.report.checkpoint import show_json
from ckptswap.report.diff import diff_json
from ckptswap.report.evaluate import evaluate_json
from ckptswap.report.sweep import sweep_json
from ckptswap.statistics import Comparison
from ckptswap.sweep.result import SweepResult


def of_checkpoint(checkpoint: Checkpoint, *chosen: Any) -> Any:
    """A row a tensor: name, layer, kind, shape, …; `chosen` are entries and statistics as in `show_json`."""
    return _frame(show_json(checkpoint, *chosen))


def of_diff(diff: Diff) -> Any:
    """A row a tensor, its status and its distances."""
    return _frame(diff_json(diff))


def of_sweep(result: SweepResult) -> Any:
    """A row a cell, with its drop, intervals and verdict; metric, baseline and tolerance are in `attrs`."""
    return _frame(sweep_json(result))


def of_comparison(comparison: Comparison) -> Any:
    """A row a checkpoint and metric: path, metric, value, ci_low, ci_high."""
    told = evaluate_json(comparison)
    return _frame({**told, "rows": list(_scores(told))})


def _scores(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for checkpoint in told["checkpoints"]:
        for metric, score in checkpoint["scores"].items():
            yield {"path": checkpoint["path"], "metric": metric, **score}


def _frame(told: Mapping[str, Any]) -> Any:
    """Its rows; what is told of them all goes into `attrs`. Raises `DependencyError`."""
    rows: Sequence[Mapping[str, Any]] = told["rows"]
    frame = library("pandas").DataFrame(rows)
    frame.attrs.update({name: value for name, value in told.items() if isinstance(value, str | int | float)})
    return frame
