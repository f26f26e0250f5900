"""The JSON Schemas in docs/: real outputs pass, and what the contract forbids does not."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_samples as samples
from jsonschema import Draft202012Validator, ValidationError

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import diff
from ckptswap.moments import moments_of
from ckptswap.report.checkpoint import show_json, verify_json
from ckptswap.report.diff import diff_json, threeway_json
from ckptswap.report.plan import plan_json
from ckptswap.report.select import select_json
from ckptswap.report.sweep import sweep_json
from ckptswap.report.text import dump_json
from ckptswap.scoring.scorer import Cost
from ckptswap.selection import Selection
from ckptswap.statistics import Interval
from ckptswap.sweep.plan import make_plan
from ckptswap.sweep.result import Barrier, DonorScore, Point, Recalibrated
from ckptswap.sweep.select import Choice
from ckptswap.threeway import three_way
from ckptswap.verify import Fault, Report

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
Json = dict[str, Any]


def validate(name: str, data: Json) -> None:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(dump_json(data)))


def checkpoint(**arrays: np.ndarray) -> Checkpoint:
    return Checkpoint.from_arrays({name.replace("_", ".", 1): array for name, array in arrays.items()})


BEFORE = checkpoint(
    c_weight=np.ones((2, 1, 3, 3), np.float32),
    c_bias=np.array([1, np.nan], np.float32),
    n_steps=np.array(3),
    d_bias=np.ones(2),
)
AFTER = checkpoint(
    c_weight=np.zeros((2, 1, 3, 3), np.float32),
    c_bias=np.array([2, np.inf], np.float32),
    n_steps=np.array([3]),
    e_bias=np.ones(2),
)


def stats() -> Json:
    moments = {
        name: moments_of(BEFORE.read(name).reshape(-1).view(np.uint8), entry.dtype)
        for name, entry in BEFORE.items()
    }
    return show_json(BEFORE, moments=moments)


COST = Cost("replay", share=0.6, seconds=12.5, peak=14_200_000)


def sweep_with_all() -> Json:
    """Two donors, another mode, paths, new statistics."""
    plain = samples.sweep()
    extra = {
        "path": (Point(0.5, 0.9, 0.03, None, None),),
        "barrier": Barrier(0.5, 0.01, -0.1, 0.2),
        "recalibrated": Recalibrated(score=0.9, drop=0.01, ci_low=0.0, ci_high=0.02, verdict="undecided"),
    }
    rows = [
        dataclasses.replace(row, donor=at % 2, **extra if row.rank else {}) for at, row in enumerate(plain.rows)
    ]
    donors = (DonorScore("a", 0.5), DonorScore("zeros", None))
    more = {"mode": "prefix", "donors": donors, "recalibrated_baseline": 0.8}
    return sweep_json(dataclasses.replace(plain, rows=tuple(rows), **more))


def choice() -> Json:
    rows = tuple(row for row in samples.sweep().rows if row.rank)[:3]
    found = Choice(
        "iou",
        "max",
        0.01,
        0.9,
        0.89,
        Interval(0.001, None, None),
        rows[:2],
        rows[2:],
        4,
        0,
        9,
        ("b", ("a",)),
        {},
        ((),),
    )
    return select_json(found, ["ckptswap transplant"])


REAL: dict[str, tuple[str, Callable[[], Json]]] = {
    "sweep": ("sweep", lambda: sweep_json(samples.sweep())),
    "sweep with all there is": ("sweep", sweep_with_all),
    "sweep by several metrics": ("sweep", lambda: sweep_json(samples.several())),
    "select": ("select", choice),
    "show": ("show", lambda: show_json(BEFORE)),
    "show --stats": ("show", stats),
    "show of a sample": ("show", lambda: samples.show(stats=True)),
    "diff": ("diff", lambda: diff_json(diff(BEFORE, AFTER))),
    "diff --stat": ("diff", lambda: diff_json(diff(BEFORE, AFTER, values=False))),
    "diff --by layer": ("diff", lambda: diff_json(diff(BEFORE, AFTER).grouped(["layer"]))),
    "diff --by layer,kind": ("diff", lambda: diff_json(diff(BEFORE, AFTER).grouped(["layer", "kind"]))),
    "diff of a sample": ("diff", samples.diff),
    "diff of a grouped sample": ("diff", samples.grouped),
    "diff of three": ("diff3", lambda: threeway_json(three_way(BEFORE, AFTER, BEFORE))),
    "evaluate": ("evaluate", samples.evaluate),
    "explain": ("explain", samples.explain),
    "plan": ("plan", lambda: plan_json(make_plan(BEFORE, AFTER, Selection()), "runs/0", 10, COST)),
    "verify": ("verify", lambda: verify_json(Report("a.pt", None, 0, 0, (Fault(None, "it is cut short"),)))),
}


@pytest.mark.parametrize("name", REAL)
def test_real_output_is_valid(name: str) -> None:
    schema, make = REAL[name]
    validate(schema, make())


def test_diff_says_what_is_missing_as_null() -> None:
    rows = {row["name"]: row for row in diff_json(diff(BEFORE, AFTER))["rows"]}
    assert rows["d.bias"]["status"] == "only_a"
    assert (rows["d.bias"]["shape_b"], rows["d.bias"]["rmse"], rows["d.bias"]["changed"]) == (None, None, None)
    assert (rows["c.bias"]["changed"], rows["c.bias"]["rmse"], rows["c.bias"]["nan_a"]) == (2, 1.0, 1)


def test_sweep_fields_come_in_the_order_of_the_contract() -> None:
    data = sweep_json(samples.sweep())
    head = "schema metric direction tolerance baseline donor_score samples groups complete rows findings"
    row = (
        "rank layer block kind tensors numel rmse rel_l2 score drop ci_low ci_high sim_low sim_high p_reusable "
        "p_sensitive zero_drop samples status verdict reason unseen"
    )
    assert list(data) == head.split()
    assert list(data["rows"][0]) == row.split()
    assert list(data["findings"][0]) == ["claim", "text", "rule", "numbers", "verdict"]


WHERE_ASKED = {"mode", "donors", "recalibrated_baseline", "error", "se", "metrics"}
"""Keys that only some sweeps have."""


@pytest.mark.parametrize("name", REAL)
def test_no_key_may_be_added_or_left_out(name: str) -> None:
    schema, make = REAL[name]
    for key in make().keys() - WHERE_ASKED:
        with pytest.raises(ValidationError, match="required"):
            validate(schema, {k: v for k, v in make().items() if k != key})
    with pytest.raises(ValidationError):
        validate(schema, make() | {"more": 1})
    lists = [key for key, value in make().items() if isinstance(value, list) and isinstance(value[0], dict)]
    for key in lists:
        broken = copy.deepcopy(make())
        broken[key][0]["more"] = 1
        with pytest.raises(ValidationError):
            validate(schema, broken)


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("measured", {"verdict": None}),
        ("measured", {"rank": None}),
        ("measured", {"rank": 0}),
        ("identical", {"rank": 1}),
        ("identical", {"sim_low": 0.0}),
        ("no-effect", {"drop": None}),
        ("no-effect", {"verdict": "undecided"}),
        ("mismatch", {"drop": 0.0}),
        ("mismatch", {"reason": None}),
        ("failed", {"rmse": 0.0}),
    ],
)
def test_a_status_says_what_is_there(status: str, change: Json) -> None:
    result = samples.sweep()
    rows = [dataclasses.replace(row, **change) if row.status == status else row for row in result.rows]
    with pytest.raises(ValidationError):
        validate("sweep", sweep_json(dataclasses.replace(result, rows=tuple(rows))))
