"""`ckptswap doctor`: what to paste into a bug report."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptswap.cli.flags import OutFlag, OverFlag
from ckptswap.cli.terminal import emit


def doctor(
    format: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print it.")] = "table",
    out: OutFlag = None,
    force: OverFlag = False,
) -> None:
    """Print versions, threads, devices and extras: what a bug report needs.

    \b
    Examples:
      ckptswap doctor
      ckptswap doctor --format json | jq .versions
    """
    from ckptswap.doctor import examine
    from ckptswap.report.text import dump_json, safe

    found = examine()
    if format == "json":
        emit(dump_json(found), out)
        return
    lines = []
    for section, facts in found.items():
        lines += [section, *(f"  {name:<28} {safe(str(fact))}" for name, fact in facts.items())]
    emit("\n".join(lines), out)
