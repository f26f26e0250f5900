"""`ckptswap convert`: the same tensors in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptswap.cli.flags import DropUnreadFlag, ForceFlag
from ckptswap.cli.terminal import emit, progress, say, tell_notes


def convert(
    source: Annotated[
        str, typer.Argument(help="A checkpoint in any format that can be read.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Argument(
            help="What to write: .safetensors, .pt, .npz …; ending in / or .index.json for shards.",
            show_default=False,
        ),
    ],
    strip_prefix: Annotated[
        str | None, typer.Option("--strip-prefix", metavar="PREFIX", help="Take it off all names.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(metavar="BYTES", min=1, help="The most tensor data in one shard. [default: 5 GB]")
    ] = None,
    drop_unread: DropUnreadFlag = False,
    force: ForceFlag = False,
) -> None:
    """Write a checkpoint's tensors in the format that the target's name says, bit for bit, and print its path.

    \b
    Examples:
      ckptswap convert segment.safetensors segment.npz
      ckptswap convert segment.safetensors segment.pt
      ckptswap convert segment.safetensors shards/ --shard-size 200000
    """
    from ckptswap.formats import SHARD_SIZE, open_checkpoint, write_checkpoint
    from ckptswap.formats.companions import companions, left_behind
    from ckptswap.renaming import strip_all

    with open_checkpoint(source) as opened:
        tell_notes(opened)
        for each in left_behind(opened, target):
            say(f"ckptswap: note: {each}")
        [named] = strip_all([opened], strip_prefix) if strip_prefix else [opened]
        with progress("converting") as tell:
            written = write_checkpoint(
                named,
                target,
                force=force,
                shard_size=shard_size or SHARD_SIZE,
                drop_unread=drop_unread,
                progress=tell,
                others=companions(opened).taken,
            )
    emit(str(written))
