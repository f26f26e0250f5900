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


def agreement_json(found: Agreement) -> dict[str, Any]:
    """The object of docs/schemas/agreement.schema.json."""
    return {
        "schema": SCHEMA,
        "metric": found.results[0].metric,
        "direction": found.results[0].direction,
        "runs": [
            {
                "path": path,
                "baseline": result.baseline,
                "tolerance": result.tolerance,
                "samples": result.samples,
                "notes": list(result.notes),
            }
            for path, result in zip(found.runs, found.results, strict=True)
        ],
        "kendall": [{"a": a, "b": b, "by": split, "tau": value} for (a, b, split), value in found.kendall.items()],
        "rows": [
            {
                "layer": cell.layer,
                "kind": cell.kind,
                "differs": cell.differs,
                "runs": [None if row is None else _row(row) for row in cell.rows],
            }
            for cell in found.cells
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("status", "samples", "drop", "sim_low", "sim_high", "verdict")}


def agreement_csv(found: Agreement) -> str:
    """A line a cell, a drop for each run."""
    columns = ["layer", "kind", "differs", *found.runs]
    return to_csv(
        columns,
        (
            [cell.layer, cell.kind, _differs(cell), *(None if row is None else row.drop for row in cell.rows)]
            for cell in found.cells
        ),
    )


def _differs(cell: Shared) -> str | None:
    return None if cell.differs is None else "yes" if cell.differs else "no"


def agreement_document(found: Agreement, top: int | None = None) -> Document:
    """What the runs are, how alike they rank, and the cells, the largest spread first."""
    letters = [chr(ord("A") + at) if at < 26 else str(at) for at in range(len(found.runs))]
    runs = tuple(
        (letter, path, result.baseline, result.tolerance, result.samples)
        for letter, path, result in zip(letters, found.runs, found.results, strict=True)
    )
    kendall = tuple((letters[a], letters[b], split, value) for (a, b, split), value in found.kendall.items())
    shown = found.cells if top is None else found.cells[:top]
    said = (
        f"{letter}: {note}" for letter, result in zip(letters, found.results, strict=True) for note in result.notes
    )
    note = "" if top is None or len(found.cells) <= top else f"and {len(found.cells) - top:,} more"
    return Document(
        f"{len(found.runs)} runs, drop in {found.results[0].metric}",
        (_lead(found), *said),
        (
            Table("Runs", ("", "run", "baseline", "tolerance", "samples"), runs),
            Table("Ranks' agreement (Kendall)", ("", "and", "by", "tau"), kendall),
            Table("Cells, by spread", ("layer", "kind", "differs", *letters), tuple(map(_cell, shown)), note),
        ),
    )


def _lead(found: Agreement) -> str:
    """How many cells differ, of those of which that can be told."""
    known = [cell for cell in found.cells if cell.differs is not None]
    alone = sum(sum(row is not None for row in cell.rows) < 2 for cell in found.cells)
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
