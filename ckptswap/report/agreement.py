"""Several runs side by side, for a terminal, programs and GitHub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptswap.report.document import Document, Table, Value
from ckptswap.report.tabular import to_csv
from ckptswap.report.text import letters_of, named, number, plural

if TYPE_CHECKING:
    from ckptswap.sweep.agreement import Agreement, Shared

SCHEMA = "ckptswap.agreement/2"
_OF_ROW = ("status", "samples", "drop", "sim_low", "sim_high", "verdict")
_DIFFERS = {None: None, True: "yes", False: "no"}


def agreement_json(compared: Agreement) -> dict[str, Any]:
    """The object of docs/schemas/agreement.schema.json."""
    return {
        "schema": SCHEMA,
        "metric": compared.results[0].metric,
        "direction": compared.results[0].direction,
        "runs": [
            {"path": path, **_fields(result, "baseline", "tolerance", "samples"), "notes": list(result.notes)}
            for path, result in zip(compared.runs, compared.results, strict=True)
        ],
        "kendall": [
            {"a": a, "b": b, "by": split, "tau": value} for (a, b, split), value in compared.kendall.items()
        ],
        "rows": [
            _fields(cell, "layer", "kind", "differs")
            | {"runs": [row and _fields(row, *_OF_ROW) for row in cell.rows]}
            for cell in compared.cells
        ],
    }


def _fields(source: object, *names: str) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def agreement_csv(compared: Agreement) -> str:
    """A line a cell, a drop for each run."""
    rows = ([cell.layer, cell.kind, _DIFFERS[cell.differs], *_drops(cell)] for cell in compared.cells)
    return to_csv(["layer", "kind", "differs", *compared.runs], rows)


def _drops(cell: Shared) -> list[float | None]:
    return [None if row is None else row.drop for row in cell.rows]


def agreement_document(compared: Agreement, top: int | None = None) -> Document:
    """What the runs are, how alike they rank, and the cells, the largest spread first."""
    letters = letters_of(compared.runs)
    lettered = list(zip(letters, compared.runs, compared.results, strict=True))
    runs = tuple((letter, path, run.baseline, run.tolerance, run.samples) for letter, path, run in lettered)
    kendall = tuple((letters[a], letters[b], split, value) for (a, b, split), value in compared.kendall.items())
    shown = tuple(map(_cell, compared.cells[:top]))
    hidden = len(compared.cells) - len(shown)
    more = f"and {hidden:,} more" if hidden else ""
    return Document(
        f"{len(compared.runs)} runs, drop in {compared.results[0].metric}",
        (_lead(compared), *(f"{letter}: {note}" for letter, _, run in lettered for note in run.notes)),
        (
            Table("Runs", ("", "run", "baseline", "tolerance", "samples"), runs),
            Table("Ranks' agreement (Kendall)", ("", "and", "by", "tau"), kendall),
            Table("Cells, by spread", ("layer", "kind", "differs", *letters), shown, more),
        ),
    )


def _lead(compared: Agreement) -> str:
    """How many cells differ, of those of which that can be told."""
    known = [cell for cell in compared.cells if cell.differs is not None]
    alone = sum(sum(row is not None for row in cell.rows) < 2 for cell in compared.cells)
    beside = f" {plural(alone, 'cell')} in one run only." if alone else ""
    if not known:
        return f"No two runs have intervals of one cell, so that nothing can be told apart.{beside}"
    apart = sum(bool(cell.differs) for cell in known)
    return (
        f"{plural(apart, 'cell')} differ{'s' if apart == 1 else ''} beyond the intervals (simultaneous 95 % ones "
        f"that do not meet), of {len(known)} of which two runs have them.{beside}"
    )


def _cell(cell: Shared) -> tuple[Value, ...]:
    drops = (drop if drop is None else number(drop, 3, signed=True) for drop in _drops(cell))
    return (None if cell.layer is None else named(cell.layer), cell.kind, _DIFFERS[cell.differs], *drops)
