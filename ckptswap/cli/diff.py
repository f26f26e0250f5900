"""`ckptswap diff`: what differs between two checkpoints, or what two made of a third."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from ckptswap import api
from ckptswap.cli.flags import FILE, NAMES, SELECTION, DrawnFlags, Group, Keywords, Patterns, flags
from ckptswap.errors import EXIT_DIFFERENT, UsageError
from ckptswap.report import diff as report

ROWS: Group = {
    "stat": (
        Annotated[bool, typer.Option("--stat", help="Headers only: names, shapes and dtypes, no values."), FILE],
        False,
    ),
    "by": (
        Annotated[
            Patterns, typer.Option("--by", metavar="WAY", help="Pool the rows: layer, kind, or layer,kind."), FILE
        ],
        None,
    ),
    "sort": (
        Annotated[
            Literal["name", "rmse", "max_abs", "rel_l2", "changed"],
            typer.Option(help="Largest first, or by name."),
            FILE,
        ],
        "name",
    ),
    "top": (Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N rows."), FILE], None),
}
"""Which rows, and how they stand."""


@flags(select=SELECTION, names=NAMES, rows=ROWS)
def diff(
    a: Annotated[str, typer.Argument(help="The one.", show_default=False)],
    b: Annotated[str, typer.Argument(help="The other.", show_default=False)],
    select: Keywords,
    names: Keywords,
    rows: Keywords,
    output: DrawnFlags,
    third: Annotated[
        str | None, typer.Argument(metavar="[c]", help="With three, the first is what the other two came from.")
    ] = None,
    all_rows: Annotated[
        bool, typer.Option("--all", help="In the table, also list what did not change."), FILE
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 when something differs."), FILE
    ] = False,
) -> None:
    """Compare two checkpoints tensor by tensor: bytes first, then by how much. Or three: BASE A B.

    \b
    Examples:
      ckptswap diff init.safetensors segment.safetensors
      ckptswap diff init.safetensors segment.safetensors --only 'bn.running_*' --layers encoder.3
      ckptswap diff init.safetensors segment.safetensors --by kind --sort rel_l2
      ckptswap diff init.safetensors segment.safetensors --stat --format json | jq .summary
      ckptswap diff init.safetensors segment.safetensors reconstruct.safetensors --kind conv.bias
    """
    compared = {**select, **names}
    if third is None:
        differs = _two(a, b, compared, rows, output, all_rows)
    else:
        if rows != {name: default for name, (_, default) in ROWS.items()}:
            raise UsageError(
                "--stat, --by, --sort and --top do not go with three checkpoints", remedy="leave them out"
            )
        differs = _three((a, b, third), compared, output, all_rows)
    if exit_code and differs:
        raise typer.Exit(EXIT_DIFFERENT)


def _two(a: str, b: str, compared: Keywords, rows: Keywords, output: DrawnFlags, every: bool) -> bool:
    """Print how two differ; returns whether they do."""
    result = api.diff(a, b, stat=rows["stat"], **compared)
    pooled = (
        result.grouped(tuple(word.strip() for way in rows["by"] for word in way.split(",")))
        if rows["by"]
        else result
    )
    output.emit(
        report.diff_json(pooled.sorted(rows["sort"], rows["top"])),
        table=lambda document: report.diff_table(document, output.style, every=every),
        csv=report.diff_csv,
        md=lambda document: report.diff_md(document, every=every),
    )
    return result.differs


def _three(sides: tuple[str, str, str], compared: dict[str, Any], output: DrawnFlags, every: bool) -> bool:
    """Print who changed what; returns whether a side differs from the base."""
    result = api.diff3(*sides, **compared)
    output.emit(
        report.threeway_json(result),
        table=lambda document: report.threeway_table(document, output.style, every=every),
        csv=report.threeway_csv,
        md=report.threeway_md,
    )
    return any(row.status != "unchanged" for row in result.rows)
