"""Several runs side by side, for a terminal, programs and GitHub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptswap.report.document import Document, Table, Value
from ckptswap.report.tabular import to_csv
from ckptswap.report.text import named, number, plural

if TYPE_CHECKING:
    from ckptswap.sweep.agreement import Agreement, Shared
    from ckptswap.sweep.result import Row

SCHEMA = "ckptswap.agreement/2"


def agreement_json(compared: Agreement) -> dict[str, Any]:
    """The object of docs/schemas/agreement.schema.json."""
    return {
        "schema": SCHEMA,
        "metric": compared.results[0].metric,
        "direction": compared.results[0].direction,
        "runs": [
            {
                "path": path,
                "baseline": result.baseline,
                "tolerance": result.tolerance,
                "samples": result.samples,
                "notes": list(result.notes),
            }
            for path, result in zip(compared.runs, compared.results, strict=True)
        ],
        "kendall": [
            {"a": a, "b": b, "by": split, "tau": value} for (a, b, split), value in compared.kendall.items()
        ],
        "rows": [
            {
                "layer": cell.layer,
                "kind": cell.kind,
                "differs": cell.differs,
                "runs": [None if row is None else _row(row) for row in cell.rows],
            }
            for cell in compared.cells
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("status", "samples", "drop", "sim_low", "sim_high", "verdict")}


def agreement_csv(compared: Agreement) -> str:
    """A line a cell, a drop for each run."""
    columns = ["layer", "kind", "differs", *compared.runs]
    return to_csv(
        columns,
        (
            [cell.layer, cell.kind, _differs(cell), *(None if row is None else row.drop for row in cell.rows)]
            for cell in compared.cells
        ),
    )


def _differs(cell: Shared) -> str | None:
    return None if cell.differs is None else "yes" if cell.differs else "no"


def agreement_document(compared: Agreement, top: int | None = None) -> Document:
    """What the runs are, how alike they rank, and the cells, the largest spread first."""
    letters = [chr(ord("A") + at) if at < 26 else str(at) for at in range(len(compared.runs))]
    runs = tuple(
        (letter, path, result.baseline, result.tolerance, result.samples)
        for letter, path, result in zip(letters, compared.runs, compared.results, strict=True)
    )
    kendall = tuple((letters[a], letters[b], split, value) for (a, b, split), value in compared.kendall.items())
    shown = compared.cells if top is None else compared.cells[:top]
    notes = (
        f"{letter}: {note}"
        for letter, result in zip(letters, compared.results, strict=True)
        for note in result.notes
    )
    note = "" if top is None or len(compared.cells) <= top else f"and {len(compared.cells) - top:,} more"
    return Document(
        f"{len(compared.runs)} runs, drop in {compared.results[0].metric}",
        (_lead(compared), *notes),
        (
            Table("Runs", ("", "run", "baseline", "tolerance", "samples"), runs),
            Table("Ranks' agreement (Kendall)", ("", "and", "by", "tau"), kendall),
            Table("Cells, by spread", ("layer", "kind", "differs", *letters), tuple(map(_cell, shown)), note),
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
    differ = plural(apart, "cell") + (" differs" if apart == 1 else " differ")
    return (
        f"{differ} beyond the intervals (simultaneous 95 % ones that do not meet), of {len(known)} of which two "
        f"runs have them.{beside}"
    )


def _cell(cell: Shared) -> tuple[Value, ...]:
    drops = (None if row is None or row.drop is None else number(row.drop, 3, signed=True) for row in cell.rows)
    return (None if cell.layer is None else named(cell.layer), cell.kind, _differs(cell), *drops)
