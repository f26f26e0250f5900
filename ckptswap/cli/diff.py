"""`ckptswap diff`: what differs between two checkpoints, or what two made of a third."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from ckptswap import api
from ckptswap.cli.flags import PAIR_NAMES, SELECTION, DrawnFlags, Keywords, Patterns, flags
from ckptswap.errors import EXIT_DIFFERENT, UsageError
from ckptswap.records import option
from ckptswap.report import diff as report


@dataclass
class RowFlags:
    """Which rows, and how they stand."""

    stat: bool = option(False, "Headers only: names, shapes and dtypes, no values.", defaults="file")
    by: Patterns = option(
        None, "Pool the rows: layer, block, kind, layer,kind or block,kind.", metavar="WAY", defaults="file"
    )
    sort: Literal["name", "rmse", "max_abs", "rel_l2", "changed"] = option(
        "name", "Largest first, or by name.", defaults="file"
    )
    top: int | None = option(None, "Only the first N rows.", metavar="N", least=1, defaults="file")


@dataclass
class EndFlags(DrawnFlags):
    """How the result is printed, and where, and what the exit code says of it."""

    every: bool = option(False, "In the table, also list what did not change.", flag="all", defaults="file")
    exit_code: bool = option(False, "Exit with 1 when something differs.", defaults="file")


@flags(select=SELECTION, names=PAIR_NAMES)
def diff(
    a: Annotated[str, typer.Argument(help="The one.", show_default=False)],
    b: Annotated[str, typer.Argument(help="The other.", show_default=False)],
    select: Keywords,
    names: Keywords,
    rows: RowFlags,
    output: EndFlags,
    third: Annotated[
        str | None, typer.Argument(metavar="[c]", help="With three, the first is what the other two came from.")
    ] = None,
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
    if third is None:
        result = api.diff(a, b, stat=rows.stat, **select, **names)
        differs = result.differs
        if rows.by:
            result = result.grouped(tuple(word.strip() for way in rows.by for word in way.split(",")))
        output.emit(
            report.diff_json(result.sorted(rows.sort, rows.top)),
            table=lambda document: report.diff_table(document, output.style, every=output.every),
            csv=report.diff_csv,
            md=lambda document: report.diff_md(document, every=output.every),
            latex=lambda document: report.diff_latex(document, every=output.every),
        )
    else:
        if rows != RowFlags():
            remedy = "leave them out"
            raise UsageError("--stat, --by, --sort and --top do not go with three checkpoints", remedy=remedy)
        changes = api.diff3(a, b, third, **select, **names)
        differs = any(row.status != "unchanged" for row in changes.rows)
        output.emit(
            report.threeway_json(changes),
            table=lambda document: report.threeway_table(document, output.style, every=output.every),
            csv=report.threeway_csv,
            md=report.threeway_md,
            latex=report.threeway_latex,
        )
    if output.exit_code and differs:
        raise typer.Exit(EXIT_DIFFERENT)
