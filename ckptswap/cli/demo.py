"""`ckptswap demo`: see it work, on a real brain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptswap.cli.flags import AsciiFlag
from ckptswap.cli.terminal import Meter, command_line, emit, say, style

TOP = 20
"""Cells that the table shows; the folder and `ckptswap report` have them all."""


def demo(
    folder: Annotated[str, typer.Argument(help="Where to leave everything.")] = "ckptswap-demo",
    ascii: AsciiFlag = False,
) -> None:
    """Train a U-Net to segment and one to reconstruct brain MRI, swap every part, rank what breaks.

    Takes two to three minutes on two cores, and leaves checkpoints, the run and commands.sh (the same by hand) in
    the folder. The same command again continues. Needs the extra 'demo'.

    \b
    Examples:
      ckptswap demo
    """
    from ckptswap.cli.sweep import export, keep_page, render
    from ckptswap.lab import demo as library
    from ckptswap.scoring.allocator import keep_freed_memory

    keep_freed_memory()

    meters: dict[str, Meter] = {}

    def tell(stage: str, done: int, total: int, remark: str) -> None:
        if stage not in meters:
            for meter in meters.values():
                meter.close()
            say(f"{len(meters) + 1}/3 {stage}")
            meters[stage] = Meter(stage)
        meters[stage](done, total, remark)

    say(f"ckptswap demo: gray matter in the MNI152 template, in {folder}/")
    try:
        found = library.demo(Path(folder), tell, command=command_line())
    finally:
        for meter in meters.values():
            meter.close()
    export(found.result, str(found.folder / library.RUN))
    keep_page(found.result, str(found.folder / library.RUN))
    emit(render(found.result, "table", style(ascii=ascii), top=TOP))
    say(f"all of it is in {folder}/: the checkpoints, the run (`ckptswap report {folder}/{library.RUN}` shows it "
        f"again), and {library.COMMANDS}, the same by hand")  # fmt: skip
