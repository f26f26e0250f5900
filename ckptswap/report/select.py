"""The cells that can be taken together: what they cost, which they are, and the command that takes them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, paragraph, render
from ckptswap.report.tabular import to_csv, to_md
from ckptswap.report.text import Style, count, figure, fixed, interval, named, number, plural, safe
from ckptswap.shell import printable

if TYPE_CHECKING:
    from ckptswap.sweep.result import Row
    from ckptswap.sweep.select import Choice

SCHEMA = "ckptswap.select/1"
FIELDS = ("taken", "layer", "kind", "donor", "numel", "rmse", "drop", "tensors")


def select_json(choice: Choice, commands: list[str]) -> dict[str, Any]:
    """As pure data, `docs/schemas/select.schema.json`: taken cells first, each group with the least drop first."""
    donors = choice.sources[1]
    rows = [_row(row, donors, taken=taken) for taken in (True, False) for row in _of(choice, taken)]
    return {
        "schema": SCHEMA,
        "metric": choice.metric,
        "direction": choice.direction,
        "tolerance": choice.tolerance,
        "baseline": choice.baseline,
        "score": choice.score,
        "drop": choice.drop.estimate,
        "ci_low": choice.drop.low,
        "ci_high": choice.drop.high,
        "taken": len(choice.taken),
        "numel": choice.numel,
        "free": choice.same,
        "unscored": choice.unscored,
        "evaluations": choice.evaluations,
        "rows": rows,
        "commands": commands,
    }


def _of(choice: Choice, taken: bool) -> tuple[Row, ...]:
    return choice.taken if taken else choice.left


def _row(row: Row, donors: tuple[str, ...], *, taken: bool) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in ("layer", "kind", "numel", "rmse", "drop")}
    return {"taken": taken, **own, "donor": donors[row.donor], "tensors": list(row.tensors)}


def select_table(data: Mapping[str, Any], style: Style) -> str:
    """What was found in a sentence, the cells that were left with their own drops, and the command."""
    rows, left = data["rows"], [row for row in data["rows"] if not row["taken"]]
    drop = interval(data["ci_low"], data["ci_high"], 5, signed=True)
    found = (
        f"{data['taken']} of {plural(len(rows), 'cell')} can be taken together ({count(data['numel'])} values): "
        f"{safe(data['metric'])} {number(data['baseline'])} becomes {number(data['score'])}, a drop of "
        f"{fixed(data['drop'], 5, signed=True)} {drop}, within {number(data['tolerance'])}"
    )
    more = (
        f"{data['free']} more are equal in both or never read, {data['unscored']} have no score in the sweep; "
        f"{data['evaluations']} sets were scored"
    )
    columns = [Column("layer", smallest=10), Column("kind", smallest=15), Column("numel", right=True)]
    columns += [Column("RMSE", right=True), Column("drop alone", right=True)]
    lines = [*paragraph(found, style), *paragraph(more, style, look=QUIET)]
    if left:
        cells = [_cells(row) for row in left]
        lines += [Text(), Text("left with the recipient", style=HEADING), *grid(columns, cells, style)]
    if data["commands"]:
        lines += [Text(), Text("to make it", style=HEADING)]
    return render(lines, style) + "".join(f"{_wrapped(each, style)}\n" for each in data["commands"])


def _wrapped(command: str, style: Style) -> str:
    """A command over several lines, which a shell reads as one."""
    lines = [""]
    for word in map(printable, shlex.split(command)):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and len(longer) > style.width - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    return " \\\n  ".join(lines)


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    layer = "(all)" if row["layer"] is None else named(row["layer"])
    kind = safe(row["kind"] or "(all)")
    return [layer, kind, count(row["numel"]), figure(row["rmse"]), fixed(row["drop"], 4, signed=True)]


def select_csv(data: Mapping[str, Any]) -> str:
    """All cells, one a line."""
    return to_csv(FIELDS, _rows(data))


def select_md(data: Mapping[str, Any]) -> str:
    """All cells as a table for GitHub, then the command."""
    block = "\n".join(data["commands"])
    return f"{to_md(FIELDS, _rows(data))}\n```sh\n{block}\n```\n"


def _rows(data: Mapping[str, Any]) -> list[list[object]]:
    return [[" ".join(row[name]) if name == "tensors" else row[name] for name in FIELDS] for row in data["rows"]]
