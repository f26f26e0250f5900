"""What to do next after a sweep, as commands that a shell takes as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

from ckptswap.report.rows import row_names, sections
from ckptswap.shell import joined, quoted
from ckptswap.statistics import REUSABLE
from ckptswap.sweep.provenance import FROM_PYTHON, Provenance
from ckptswap.sweep.result import Row, SweepResult

MOST_NAMES = 12  # of tensors in a command that is to be read


@dataclass(frozen=True)
class NextStep:
    """What a command is for, and the command."""

    why: str
    command: str


def next_steps(result: SweepResult, origin: Provenance, run: str, *, is_own: bool) -> list[NextStep]:
    """What helps with this run, in order; nothing that holds control characters, and of a folder that `is_own` not
    no command that the folder names, nor one that would run its code.

    >>> row = Row("c", "conv.bias", ("c.bias",), 4, "measured", rank=1, drop=0.0, verdict="reusable")
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))
    >>> for step in next_steps(result, Provenance("b.pt", ("a.pt",), {}), "run 1", is_own=True)[:2]:
    ...     print(step.command)
    ckptswap select 'run 1'
    ckptswap transplant --from a.pt --to b.pt --only '=c.bias'
    """
    steps = _steps(result, origin, run, is_own)
    return [step for step in steps if step.command.isprintable()]


def _steps(result: SweepResult, origin: Provenance, run: str, is_own: bool) -> Iterator[NextStep]:
    able = [row for row in result.rows if row.status == "measured" and row.verdict in REUSABLE]
    sweep = origin.facts.get("command") if is_own else None
    if not result.complete and sweep and sweep != FROM_PYTHON:
        yield NextStep("Go on where it stopped", sweep)
    if run and is_own and able and result.mode == "only":
        yield NextStep("Which of the reusable rows can be taken together", f"ckptswap select {quoted(run)}")
    yield from _transplant(able, result, origin)
    if run:
        yield from _looks(result, run)


def _transplant(able: list[Row], result: SweepResult, origin: Provenance) -> Iterator[NextStep]:
    """Of the largest reusable row that has a short command."""
    names = dict(zip(map(id, result.rows), row_names(result.rows), strict=True))
    ordered = [row for _, rows in sections(able) for row in sorted(rows, key=lambda row: -row.numel)]
    for row in ordered:
        start = origin.transplant(row.donor) if row.donor < len(origin.donors) else None
        if start and 0 < len(row.tensors) <= MOST_NAMES:
            only = joined(word for name in row.tensors for word in ("--only", f"={name}"))
            yield NextStep(f"Take {names[id(row)]} from the donor", f"{start} {only}")
            return


def _looks(result: SweepResult, run: str) -> Iterator[NextStep]:
    """Other views of the same numbers."""
    verdicts = {row.verdict for row in result.rows if row.status == "measured"}
    for verdict, why in (("undecided", "What is undecided"), ("sensitive", "What breaks it")):
        if verdict in verdicts:
            yield NextStep(f"{why}, every row", joined(["ckptswap", "report", run, "--verdict", verdict, "--all"]))
    if len(result.donors) < 2 and any(row.place is not None and row.kind for row in result.rows):
        yield NextStep("The heatmap for a paper", joined(["ckptswap", "plot", run, "-o", "drops.pdf"]))
    yield NextStep(
        "Every number for a program", joined(["ckptswap", "report", run, "--format", "csv", "-o", "rows.csv"])
    )
