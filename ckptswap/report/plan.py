"""What a sweep would run, before it does: cells by status, forward passes, and the cells themselves."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.records import to_json
from ckptswap.report.answer import unscored
from ckptswap.report.latex import columns_latex, tables_latex
from ckptswap.report.layout import Column, field, left_out, paragraph, render, table
from ckptswap.report.tabular import columns_csv, columns_md
from ckptswap.report.text import Style, count, duration, figure, named, plural, safe, size
from ckptswap.sweep.result import place_of

if TYPE_CHECKING:
    from ckptswap.scoring.scorer import Cost
    from ckptswap.sweep.decide import Outlook
    from ckptswap.sweep.plan import Plan

SCHEMA = "ckptswap.plan/1"
ROWS = 10


def _place(row: Mapping[str, Any]) -> str:
    place = place_of(row["layer"], row.get("block"), row.get("last_block"))
    return "(all)" if place is None else named(place)


COLUMNS = (
    Column(field="layer"),
    Column(field="block"),
    Column("layer", _place, smallest=12, forms="narrow wide latex"),
    field("kind", lambda kind: safe(kind or "(all)"), smallest=15),
    field("status", str),
    field("tensors", value=lambda row: " ".join(row["tensors"])),
    field("numel", count, right=True, spare=3),
    field("rmse", figure, "RMSE", right=True, spare=2),
    field("rel_l2", figure, "rel. L2", right=True, spare=1),
    field("reason", lambda reason: safe(reason or ""), smallest=8),
)
FIELDS = tuple(column.field for column in COLUMNS if column.is_in("json"))


def plan_json(
    plan: "Plan",
    folder: str,
    samples: int,
    cost: "Cost",
    donors: int = 1,
    screen: Mapping[str, Any] | None = None,
    outlook: "Outlook | None" = None,
) -> dict[str, Any]:
    """The plan as pure data: `variants` are scored, beside baseline and donors, each on `samples`; `share` is the
    part of all full forward passes' FLOPs that is really computed, `seconds` an estimate from timed batches.
    `screen` says by what the ranking is guessed, and for which share of that work; `outlook`, of a sweep that
    decides on its way, which shares of the variants' scores it may need."""
    plain = [name for name in FIELDS if name != "tensors"]
    rows = [
        {name: getattr(cell, name) for name in plain}
        | ({"last_block": cell.last_block} if cell.last_block else {})
        | {"tensors": list(cell.names)}
        for cell in plan.cells
    ]
    return {
        "schema": SCHEMA,
        "run": folder,
        "samples": samples,
        "cells": len(rows),
        "variants": len(plan.variants()),
        "passes": (len(plan.variants()) + 1 + donors) * samples,
        **{name: getattr(cost, name) for name in ("engine", "share", "seconds")},
        "peak_bytes": cost.peak,
        **({"screen": screen} if screen else {}),
        **({"decide": to_json(outlook)} if outlook else {}),
        "rows": rows,
    }


def plan_table(data: Mapping[str, Any], style: Style, *, every: bool = False) -> str:
    """How long it would take, the first cells that would be scored or do not fit (or `every` one), the cost."""
    told = [row for row in data["rows"] if every or row["status"] in ("measured", "mismatch")]
    shown = told if every else told[:ROWS]
    rows = [*table(COLUMNS, shown, style), *left_out(len(told) - len(shown))]
    donors = data["passes"] // data["samples"] - data["variants"] - 1
    without = unscored(Counter(row["status"] for row in data["rows"]))
    cost = (
        f"{plural(data['cells'], 'cell')}, {plural(data['variants'], 'variant')} to score, with the baseline and "
        f"{'the donor' if donors == 1 else plural(donors, 'donor')}, on {plural(data['samples'], 'sample')}"
        f"{f'; of the cells {without}' if without else ''}"
    )
    effort = "by full forward passes"
    if data["engine"] != "full":
        memory = f"at most {size(data['peak_bytes'])} of intermediate values"
        way = "close replay" if data["engine"] == "close" else "replay"
        effort = f"by {way}: {data['share']:.1%} of the work of full forward passes; {memory}"
    texts = [cost, effort, *_screen_words(data), *_outlook(data), *_controls(data), f"run: {safe(data['run'])}"]
    texts += [] if len(shown) == len(data["rows"]) else ["--all: every cell"]
    first, last = ([line for text in some for line in paragraph(text, style)] for some in (_takes(data), texts))
    job = [Text(safe(line)) for line in data.get("job", "").splitlines()]  # as it is: somebody may copy it
    last += [Text(), *job] if job else []
    return render([*first, Text(), *rows, Text(), *last], style)


def _takes(data: Mapping[str, Any]) -> Iterator[str]:
    """How long it would take, and what would take less where that is long."""
    seconds, first = data["seconds"], data.get("preparation")
    probable = (data.get("decide") or {}).get("probable_share")
    some = "" if first is None else f", of which {duration(first)} to prepare"
    if probable is None:
        yield f"about {duration(seconds)}{some}"
    else:
        scoring = seconds - (first or 0.0)
        yield f"about {duration(seconds - (1 - probable) * scoring)}, at most {duration(seconds)}{some}"
    if ways := data.get("alternatives"):
        told = " or ".join(f"{way['flags']} (about {duration(way['seconds'])})" for way in ways)
        yield f"the same question for less: {told}"


def _controls(data: Mapping[str, Any]) -> Iterator[str]:
    """What zero controls may take beside that."""
    if most := data.get("controls"):
        yield f"zero controls: at most {plural(most, 'variant')} more, one for each that comes out reusable"


def _outlook(data: Mapping[str, Any]) -> Iterator[str]:
    """What deciding on the way leaves of the work."""
    decide = data.get("decide")
    if decide is None:
        return
    probable = decide["probable_share"]
    told = "how many of all scores cannot be told"
    if probable is not None:
        told = f"probably {probable:.0%} of all scores, if rows are as in other sweeps"
    looks = ", ".join(map(str, decide["looks"]))
    yield f"verdicts after {looks} groups: {told}; at least {decide['least_share']:.0%}, at most all of it"


def _screen_words(data: Mapping[str, Any]) -> Iterator[str]:
    """What a screen takes of the work."""
    screen = data.get("screen")
    if not screen:
        return
    share = f"{screen['share']:.1%} of the work"
    if screen["samples"] is None:
        yield (
            f"screen by {screen['by']}: about {share} beside it" if screen["share"] else "screen by rmse: no work"
        )
    else:
        yield f"screen by {screen['by']}: every variant on {plural(screen['samples'], 'sample')} first, {share}"


plan_csv, plan_md = partial(columns_csv, COLUMNS), partial(columns_md, COLUMNS)


def plan_latex(data: Mapping[str, Any]) -> str:
    """The cells as a table for papers."""
    return tables_latex([columns_latex(COLUMNS, data["rows"], "What the sweep is to score")])
