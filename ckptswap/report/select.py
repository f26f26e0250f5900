"""The cells that can be taken together: what they cost, which they are, and the command that takes them."""

import shlex
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.latex import columns_latex, tables_latex
from ckptswap.report.layout import HEADING, QUIET, Column, field, paragraph, render, table
from ckptswap.report.tabular import columns_csv, columns_md
from ckptswap.report.text import Style, count, figure, fixed, interval, named, number, plural, safe
from ckptswap.shell import printable
from ckptswap.sweep.result import place_of

if TYPE_CHECKING:
    from ckptswap.sweep.select import Choice

SCHEMA = "ckptswap.select/1"


def _place(row: Mapping[str, Any]) -> str:
    place = place_of(row["layer"], row.get("block"))
    return "(all)" if place is None else named(place)


COLUMNS = (
    field("taken", lambda taken: "yes" if taken else "no", forms="json csv md latex"),
    Column(field="layer"),
    Column(field="block"),
    Column("layer", _place, smallest=10, forms="narrow wide latex"),
    field("kind", lambda kind: safe(kind or "(all)"), smallest=15),
    field("donor"),
    field("numel", count, right=True),
    field("rmse", figure, "RMSE", right=True),
    field("drop", lambda drop: fixed(drop, 4, signed=True), "drop alone", right=True),
    field("tensors", value=lambda row: " ".join(row["tensors"])),
)


def select_json(choice: "Choice", commands: list[str]) -> dict[str, Any]:
    """As pure data, `docs/schemas/select.schema.json`: taken cells first, each group with the least drop first."""
    rows = [
        {"taken": taken}
        | {name: getattr(row, name) for name in ("layer", "block", "kind", "numel", "rmse", "drop")}
        | {"donor": choice.sources[1][row.donor], "tensors": list(row.tensors)}
        for taken, group in ((True, choice.taken), (False, choice.left))
        for row in group
    ]
    return {
        "schema": SCHEMA,
        **{name: getattr(choice, name) for name in ("metric", "direction", "tolerance", "baseline", "score")},
        "drop": choice.drop.estimate,
        "ci_low": choice.drop.low,
        "ci_high": choice.drop.high,
        "taken": len(choice.taken),
        "numel": choice.numel,
        "free": choice.same,
        "unscored": choice.unscored,
        "evaluations": choice.evaluations,
        "holdout": _holdout(choice),
        "rows": rows,
        "commands": commands,
    }


def _holdout(choice: "Choice") -> dict[str, Any] | None:
    if (told := choice.holdout) is None:
        return None
    counts = {"seed": told.seed, "chosen_on": told.chosen_on, "reported_on": told.reported_on}
    return {**counts, "drop": told.drop.estimate, "ci_low": told.drop.low, "ci_high": told.drop.high}


def select_table(data: Mapping[str, Any], style: Style) -> str:
    """What was found in a sentence, the cells that were left with their own drops, and the command."""
    rows, left = data["rows"], [row for row in data["rows"] if not row["taken"]]
    drop = interval(data["ci_low"], data["ci_high"], 5, signed=True)
    answer = (
        f"{data['taken']} of {plural(len(rows), 'cell')} can be taken together ({count(data['numel'])} values): "
        f"{safe(data['metric'])} {number(data['baseline'])} becomes {number(data['score'])}, a drop of "
        f"{fixed(data['drop'], 5, signed=True)} {drop}, {_within(data)}{_halves(data)}"
    )
    more = (
        f"{data['free']} more are equal in both or never read, {data['unscored']} have no score in the sweep; "
        f"{data['evaluations']} sets were scored"
    )
    lines = [*paragraph(answer, style), *paragraph(more, style, look=QUIET)]
    if left:
        lines += [Text(), Text("left with the recipient", style=HEADING), *table(COLUMNS, left, style)]
    if data["commands"]:
        lines += [Text(), Text("to make it", style=HEADING)]
    return render(lines, style) + "".join(f"{_wrapped(command, style)}\n" for command in data["commands"])


def _within(data: Mapping[str, Any]) -> str:
    """Whether the drop stays within the tolerance, which groups that did not choose may deny."""
    is_within = not data["taken"] or (data["ci_high"] is not None and data["ci_high"] < data["tolerance"])
    return f"{'' if is_within else 'not surely '}within {number(data['tolerance'])}"


def _halves(data: Mapping[str, Any]) -> str:
    """On which groups that is told, and what the set costs on those that chose it."""
    if (told := data["holdout"]) is None:
        return ""
    ends = interval(told["ci_low"], told["ci_high"], 5, signed=True)
    return (
        f", on {told['reported_on']} groups that were held out; on the {told['chosen_on']} that chose (seed "
        f"{told['seed']}) the drop is {fixed(told['drop'], 5, signed=True)} {ends}"
    )


def _wrapped(command: str, style: Style) -> str:
    """A command over several lines, which a shell reads as one; for a pipe on one line."""
    if style.whole:
        return " ".join(map(printable, shlex.split(command)))
    lines = [""]
    for word in map(printable, shlex.split(command)):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and len(longer) > style.width - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    return " \\\n  ".join(lines)


select_csv = partial(columns_csv, COLUMNS)


def select_latex(data: Mapping[str, Any]) -> str:
    """All cells as a table for papers."""
    caption = f"Cells that can be taken together, and those that stay: drop in {data['metric']}, each alone"
    return tables_latex([columns_latex(COLUMNS, data["rows"], caption)])


def select_md(data: Mapping[str, Any]) -> str:
    """All cells as a table for GitHub, then the command."""
    return "\n".join([columns_md(COLUMNS, data), "```sh", "\n".join(data["commands"]), "```", ""])
