"""Several runs side by side, for a terminal, programs, GitHub and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ckptswap.report.document import Document, Table, Value, Written
from ckptswap.report.tabular import to_csv
from ckptswap.report.text import decimals, fixed, letters_of, named, number, plural

if TYPE_CHECKING:
    from ckptswap.sweep.agreement import Agreement, Ranks, Shared

SCHEMA = "ckptswap.agreement/3"
MEANS = ("runs", "mean", "sd", "ci_low", "ci_high")
_OF_ROW = ("status", "samples", "drop", "sim_low", "sim_high", "verdict")
_DIFFERS = {None: None, True: "yes", False: "no"}
MOST_PAIRS = 10  # of runs whose ranks a terminal shows


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
        "ranks": [_fields(pair, "a", "b", "by", "cells", "kendall", "spearman") for pair in compared.ranks],
        "rows": [
            _fields(cell, "layer", "kind", "tensor")
            | means(cell)
            | {"differs": cell.differs, "values": [row and _fields(row, *_OF_ROW) for row in cell.rows]}
            for cell in compared.cells
        ],
    }


def _fields(source: object, *names: str) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def means(cell: Shared) -> dict[str, float | int | None]:
    """How many runs know the drop, its mean over them, the standard deviation and Student's interval."""
    mean = cell.mean
    numbers = (mean.estimate, cell.sd, mean.low, mean.high) if mean else (None,) * 4
    return dict(zip(MEANS, (len(cell.drops), *numbers), strict=True))


def agreement_csv(compared: Agreement) -> str:
    """A line a cell: what is known over all runs, then a drop for each."""
    rows = (
        [cell.layer, cell.kind, cell.tensor, *means(cell).values(), _DIFFERS[cell.differs], *_drops(cell)]
        for cell in compared.cells
    )
    return to_csv(["layer", "kind", "tensor", *MEANS, "differs", *compared.runs], rows)


def _drops(cell: Shared) -> list[float | None]:
    return [None if row is None else row.drop for row in cell.rows]


def agreement_document(
    compared: Agreement, top: int | None = None, names: Sequence[str] | None = None
) -> Document:
    """What the runs are, the cells with their means, and how alike the runs rank; runs are called by letters,
    unless they have `names`."""
    letters = letters_of(compared.runs) if names is None else list(names)
    lettered = list(zip(letters, compared.runs, compared.results, strict=True))
    runs = tuple((letter, path, run.baseline, run.tolerance, run.samples) for letter, path, run in lettered)
    answer = lead(compared)
    return Document(
        f"{len(compared.runs)} runs, drop in {compared.results[0].metric}",
        (*answer, *(f"{letter}: {note}" for letter, _, run in lettered for note in run.notes)),
        (
            Table("Runs", ("", "run", "baseline", "tolerance", "samples"), runs),
            _cells(compared, top, letters),
            _ranks(compared, letters),
        ),
        len(answer),
    )


def lead(compared: Agreement) -> tuple[str, ...]:
    """The answer: what costs most on the mean, how many cells differ of those of which that can be told, and how
    alike the runs rank."""
    return tuple(filter(None, (_worst(compared), _differing(compared), _alike(compared))))


def _worst(compared: Agreement) -> str:
    known = [(cell.mean, cell) for cell in compared.cells if cell.mean and len(cell.drops) > 1]
    if not known:
        return "The runs share no cell that was scored."
    mean, cell = max(known, key=lambda pair: pair[0].estimate)
    ends = "" if mean.low is None or mean.high is None else f" [{number(mean.low, 3)}, {number(mean.high, 3)}]"
    drop = number(mean.estimate, 3, signed=True)
    return f"{cell_name(cell)} costs most: {drop}{ends} on the mean of {len(cell.drops)} runs."


def _differing(compared: Agreement) -> str:
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


def _alike(compared: Agreement) -> str:
    """The mean of the rank correlations, over the pairs of runs and the ways of splitting that have one."""
    known = [pair for pair in compared.ranks if pair.kendall is not None and pair.spearman is not None]
    if not known:
        return ""
    kendall, spearman = (fmean(getattr(pair, name) for pair in known) for name in ("kendall", "spearman"))
    mean = " on the mean" if len(known) > 1 else ""
    return f"How alike they rank: Kendall's tau {kendall:.2f}, Spearman's rho {spearman:.2f}{mean}."


def cell_name(cell: Shared) -> str:
    """What a cell is called in a sentence."""
    layer = "" if cell.layer is None else named(cell.layer)
    return cell.tensor or " ".join(filter(None, (layer, cell.kind))) or "the whole selection"


def _cells(compared: Agreement, top: int | None, letters: Sequence[str]) -> Table:
    """Means with their intervals, then what each run has."""
    cells = compared.cells[:top]
    places = decimals((drop for cell in cells for drop in cell.drops), 3)

    def written(value: float | None, *, signed: bool = False) -> Written | None:
        return None if value is None else Written(fixed(value, places, signed=signed))

    def row(cell: Shared) -> tuple[Value, ...]:
        mean = cell.mean
        half = mean.high - mean.estimate if mean and mean.high is not None else None
        estimate = written(mean.estimate if mean else None, signed=True)
        numbers = (len(cell.drops), estimate, written(half), written(cell.sd))
        drops = (written(drop, signed=True) for drop in _drops(cell))
        layer = None if cell.layer is None else named(cell.layer)
        return (layer, cell.tensor or cell.kind, *numbers, _DIFFERS[cell.differs], *drops)

    hidden = len(compared.cells) - len(cells)
    words = "±: Student's 95 % interval of the mean over runs; differs: two simultaneous intervals do not meet."
    columns = ("layer", "kind", "runs", "mean", "±", "SD", "differs", *letters)
    note = " ".join([*([f"And {hidden:,} more."] if hidden else []), words])
    return Table("Drops", columns, tuple(map(row, cells)), note, spare=len(letters) + 1)


def _ranks(compared: Agreement, letters: Sequence[str]) -> Table:
    def row(pair: Ranks) -> tuple[Value, ...]:
        ranks = (None if rank is None else Written(f"{rank:.2f}") for rank in (pair.kendall, pair.spearman))
        return letters[pair.a], letters[pair.b], pair.by, pair.cells, *ranks

    columns = ("", "and", "by", "cells", "Kendall's tau", "Spearman's rho")
    rows = tuple(map(row, compared.ranks))
    return Table("How alike they rank", columns, rows, is_long=len(rows) > MOST_PAIRS)
