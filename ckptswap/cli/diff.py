"""`ckptswap diff`: what differs between two checkpoints, or what two made of a third."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from ckptswap.cli.flags import AsciiFlag, FormatFlag, NameFlags, OutFlag, OverFlag, Patterns, SelectionFlags, flags
from ckptswap.cli.terminal import emit, note, progress, style, tell_notes, tell_unmatched
from ckptswap.errors import EXIT_DIFFERENT, UsageError
from ckptswap.selection import Selection


@flags
def diff(
    a: Annotated[str, typer.Argument(help="The one.", show_default=False)],
    b: Annotated[str, typer.Argument(help="The other.", show_default=False)],
    select: SelectionFlags,
    names: NameFlags,
    third: Annotated[
        str | None, typer.Argument(metavar="[c]", help="With three, the first is what the other two came from.")
    ] = None,
    stat: Annotated[
        bool, typer.Option("--stat", help="Headers only: names, shapes and dtypes, no values.")
    ] = False,
    by: Annotated[
        Patterns, typer.Option("--by", metavar="WAY", help="Pool the rows: layer, kind, or layer,kind.")
    ] = None,
    sort: Annotated[
        Literal["name", "rmse", "max_abs", "rel_l2", "changed"], typer.Option(help="Largest first, or by name.")
    ] = "name",
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N rows.")] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="In the table, also list what did not change.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when something differs.")] = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    force: OverFlag = False,
    ascii: AsciiFlag = False,
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
    from ckptswap.report import diff as two_way
    from ckptswap.report import threeway as three_way
    from ckptswap.report.text import dump_json

    look = style(out, ascii=ascii)
    if third is not None:
        if stat or by or top or sort != "name":
            raise UsageError(
                "--stat, --by, --sort and --top do not go with three checkpoints", remedy="leave them out"
            )
        differs, data = _three(a, b, third, select.selection(), names)
        texts = {
            "table": lambda: three_way.threeway_table(data, look, every=all_rows),
            "csv": lambda: three_way.threeway_csv(data),
            "md": lambda: three_way.threeway_md(data),
        }
    else:
        differs, data = _two(a, b, select.selection(), names, stat, by, sort, top)
        texts = {
            "table": lambda: two_way.diff_table(data, look, every=all_rows),
            "csv": lambda: two_way.diff_csv(data),
            "md": lambda: two_way.diff_md(data, every=all_rows),
        }
    emit(texts[format]() if format != "json" else dump_json(data), out)
    if exit_code and differs:
        raise typer.Exit(EXIT_DIFFERENT)


def _two(
    a: str, b: str, selection: Selection, names: NameFlags, stat: bool, by: Patterns, sort: str, top: int | None
) -> tuple[bool, dict[str, Any]]:
    """Whether the two differ, and the JSON of how."""
    from ckptswap.diff import diff as compare
    from ckptswap.formats import open_checkpoint
    from ckptswap.report.diff import diff_json

    with open_checkpoint(a) as left, open_checkpoint(b) as right:
        tell_notes(left, right)
        note(filter(None, [names.hint(left, right)]))
        left, right = names.matched(left, right)
        with progress("comparing") as tell:
            found = compare(left, right, selection, values=not stat, progress=tell)
        tell_unmatched(selection, left, right)
    pooled = found.grouped(split_ways(by)) if by else found
    return found.differs, diff_json(pooled.sorted(sort, top))


def _three(base: str, a: str, b: str, selection: Selection, names: NameFlags) -> tuple[bool, dict[str, Any]]:
    """Whether a side differs from the base, and the JSON of who changed what."""
    from ckptswap.formats import open_checkpoint
    from ckptswap.report.threeway import threeway_json
    from ckptswap.threeway import three_way

    with open_checkpoint(base) as root, open_checkpoint(a) as left, open_checkpoint(b) as right:
        tell_notes(root, left, right)
        note(filter(None, [names.hint(side, root) for side in (left, right)]))
        root, left, right = names.all_matched(root, left, right)
        with progress("comparing") as tell:
            found = three_way(root, left, right, selection, progress=tell)
        tell_unmatched(selection, root, left, right)
    return any(row.status != "unchanged" for row in found.rows), threeway_json(found)


def split_ways(values: list[str]) -> tuple[str, ...]:
    """`layer,kind` as two words."""
    return tuple(word.strip() for value in values for word in value.split(","))
