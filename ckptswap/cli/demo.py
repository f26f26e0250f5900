"""`ckptswap demo`: see it work, on a real brain."""

from typing import Annotated

import typer

from ckptswap import api
from ckptswap.cli.flags import ASCII, flags
from ckptswap.cli.sweepflags import EVERY
from ckptswap.cli.terminal import command_line, emit, say, style
from ckptswap.report.screen import render_sweep
from ckptswap.scoring.allocator import keep_freed_memory


@flags()
def demo(
    folder: Annotated[str, typer.Argument(help="Where to leave everything.")] = "ckptswap-demo",
    every: bool = EVERY,
    ascii: bool = ASCII,
) -> None:
    """Train a U-Net to segment and one to reconstruct brain MRI, swap every part, rank what breaks.

    Takes two to three minutes on two cores, and leaves checkpoints, the run and commands.sh (the same by hand) in
    the folder. The same command again continues. Needs the extra 'demo'.

    \b
    Examples:
      ckptswap demo
    """
    keep_freed_memory()
    say(f"ckptswap demo: gray matter in the MNI152 template, in {folder}/")
    made = api.demo(folder, command=command_line())
    emit(render_sweep(made.result, "table", style(ascii=ascii), every=every))
    say(f"all of it is in {folder}/: the checkpoints, the run (`ckptswap report {folder}/run` shows it "
        "again), and commands.sh, the same by hand")  # fmt: skip
