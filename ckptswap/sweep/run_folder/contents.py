"""What `plan.json` may hold. A sound checksum says that nothing has changed since, not who wrote it.

`refuse_odd_contents` holds each part against its form; `refuse_odd_run` what the parts say of each other, and the
journal's blocks against them, so that whatever reads them needs no care of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, get_args

from ckptswap.records import MOST, is_finite
from ckptswap.scoring.scorer import EXTENT, Block
from ckptswap.sweep.plan import Status
from ckptswap.sweep.result import Mode

MOST_KINDS, MOST_POINTS = 1000, 100_000
"""Beyond these a small plan keeps a report at work for minutes: kinds of tensors; points without a score."""
ANY = "*"
"""In a form: every key of an object."""

_TEXT, _NUMBER = (str, None), (float, None)
_DIRECTION = frozenset(("max", "min"))
_STATUS = frozenset(get_args(Status))
_CELL = {
    "by": [str], "layer": _TEXT, "kind": _TEXT, "names": [str], "numel": int, "status": _STATUS, "rmse": _NUMBER,
    "rel_l2": _NUMBER, "reason": _TEXT, "donor": int,
}  # fmt: skip
_RENAMES: Any = ({ANY: str}, [{ANY: str}])
_RACE = {
    "metric": str, "direction": _DIRECTION, "top": int, "confidence": float, "epsilon": float, "bounds": [_NUMBER],
}  # fmt: skip
_SOURCE = {"path": str, "renames": {ANY: str}}
_ORDER = {
    "token": str, "folder": str, "key": str, "donors": [_SOURCE], "recipient": _SOURCE, "memory": int,
    "engine": frozenset(("auto", "replay", "full")), "cwd": str, "places": [str], "calibration": (None, dict),
    "calibrated_on": _TEXT,
    "spec": {
        "model": _TEXT, "model_args": dict, "data": _TEXT, "data_args": dict, "metrics": [str], "group": _TEXT,
    },
}  # fmt: skip
_FORMS: Mapping[str, Any] = {
    "donors": [str],
    "recipient": str,
    "tolerance": _NUMBER,
    "metrics": [{"name": str, "direction": _DIRECTION, "trivial": _NUMBER, "bounds": [_NUMBER]}],
    "groups": [int],
    "units": [int],
    "walk": [[int]],
    "layers": [str],
    "donor_misfits": [_TEXT],
    "warnings": [str],
    "race": (None, _RACE),
    "screen": (None, {"by": str, "values": {ANY: float}}),
    "made": {ANY: _TEXT},
    "order": _ORDER,
    "key": dict,
    "plan": {
        "by": [[str]],
        "selection": [str],
        "cells": [_CELL],
        "mode": frozenset(get_args(Mode)),
        "alphas": [float],
        "recalibration": _TEXT,
    },
}
_KEY: Mapping[str, Any] = {
    "donor": (str, [str]),
    "recipient": str,
    "data": _TEXT,
    "names": {"donor": _RENAMES, "recipient": _RENAMES},
    "task": dict,
    "versions": dict,
}


def refuse_odd_contents(contents: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming the first part of a plan that is of another form than we write.

    >>> refuse_odd_contents({"metrics": [{"name": "iou", "direction": "mix", "trivial": None, "bounds": []}]})
    Traceback (most recent call last):
    ValueError: its part 'metrics' is not what it should be
    """
    for part, form in _FORMS.items():
        if part in contents and not _fits(contents[part], form):
            raise ValueError(f"its part {part!r} is not what it should be")
    for part, form in _KEY.items():
        if part in contents.get("key", {}) and not _fits(contents["key"][part], form):
            raise ValueError(f"the part {part!r} of its key is not what it should be")


def refuse_odd_run(contents: Mapping[str, Any], blocks: Collection[Block]) -> None:
    """Raises `ValueError` where a plan contradicts itself, or a block is none of its samples'."""
    walk, plan, donors = contents["walk"], contents["plan"], len(contents["donors"])
    samples = sum(map(len, walk))
    if not samples or sorted(place for places in walk for place in places) != list(range(samples)):
        raise ValueError("its walk leaves samples out")
    if {len(contents["groups"]), len(contents["units"])} != {samples} or not all(walk):
        raise ValueError("its groups are not those of its samples")
    if not donors or len(contents["donor_misfits"]) != donors:
        raise ValueError("its donors are not told")
    if len(contents.get("order", {}).get("donors", contents["donors"])) != donors:
        raise ValueError("its order has other donors")
    for cell in plan["cells"]:
        if cell["by"] not in plan["by"] or cell["donor"] >= donors or not cell["names"]:
            raise ValueError("it has cells that belong nowhere")
    if len(set(map(_key_of_cell, plan["cells"]))) < len(plan["cells"]):
        raise ValueError("it has the same cell twice")
    if len({cell["kind"] for cell in plan["cells"]}) > MOST_KINDS:
        raise ValueError("it has more kinds than there can be")
    if len(plan["alphas"]) * len(plan["cells"]) > MOST_POINTS + 10 * len(blocks):
        raise ValueError("it has more points of paths than anybody scores")
    metrics = {each["name"]: len(each["bounds"]) for each in contents["metrics"]}
    race = contents["race"]
    if race and (race["metric"] not in metrics or len(race["bounds"]) != 2):
        raise ValueError("its race is for nothing that is measured")
    if not metrics or set(metrics.values()) != {2} or len(metrics) != len(contents["metrics"]):
        raise ValueError("its metrics are not told")
    refuse_odd_blocks(blocks, list(map(len, walk)), list(metrics))


def _key_of_cell(cell: Mapping[str, Any]) -> Hashable:
    return tuple(cell["by"]), cell["layer"], cell["kind"], tuple(cell["names"]), cell["donor"]


def refuse_odd_blocks(blocks: Iterable[Block], sizes: Sequence[int], metrics: Sequence[str]) -> None:
    """Raises `ValueError` for a block without this run's metrics, or of other samples than its batch's."""
    widths: dict[str, int] = {}
    for block in blocks:
        if block.batch >= len(sizes):
            raise ValueError(f"the journal has scores of a batch {block.batch}, which the run does not have")
        if block.failed is not None:
            continue
        size, found = sizes[block.batch], block.statistics
        for metric in metrics:
            shape = found[metric].shape if metric in found else ()
            pooled = metric.endswith(":pooled") and shape[1:] and shape[1] % 4
            if shape != (size, widths.setdefault(metric, shape[-1] if shape else 0)) or pooled:
                raise ValueError(f"the journal has odd scores of batch {block.batch}")
        if EXTENT in found and found[EXTENT].shape != (1, 2):
            raise ValueError(f"the journal's {EXTENT} of batch {block.batch} is not one")


def _fits(value: Any, form: Any) -> bool:
    """Whether a value that JSON gave is of a form: a type, one of several, a list, an object or a word."""
    if isinstance(form, tuple):
        return any(_fits(value, each) for each in form)
    if isinstance(form, list):
        return isinstance(value, list) and _all_fit(value, form[0])
    if isinstance(form, dict):
        return isinstance(value, dict) and _object_fits(value, form)
    if isinstance(form, frozenset):
        return isinstance(value, str) and value in form
    if form is None:
        return value is None
    if form is float:
        return is_finite(value)
    return type(value) is int and 0 <= value < MOST if form is int else type(value) is form


def _all_fit(values: list[Any], form: Any) -> bool:
    if form is int:  # there may be millions
        return set(map(type, values)) <= {int} and (not values or 0 <= min(values) <= max(values) < MOST)
    return all(_fits(each, form) for each in values)


def _object_fits(value: Mapping[str, Any], form: Mapping[str, Any]) -> bool:
    if ANY in form:
        return all(_fits(each, form[ANY]) for each in value.values())
    return form.keys() <= value.keys() and all(_fits(value[key], each) for key, each in form.items())
