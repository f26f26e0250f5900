"""`ckptswap convert`: the same tensors in another format."""

from typing import Annotated

import typer

from ckptswap import api
from ckptswap.cli.flags import DROP_UNREAD, FORCE, NAMES, Keywords, flags
from ckptswap.cli.terminal import emit
from ckptswap.formats import SHARD_SIZE
from ckptswap.records import option


@flags(prefix={"strip_prefix": NAMES["strip_prefix"]})
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
    prefix: Keywords,
    shard_size: int | None = option(
        None, "The most tensor data in one shard. [default: 5 GB]", metavar="BYTES", least=1, defaults="file"
    ),
    drop_unread: bool = DROP_UNREAD,
    force: bool = FORCE,
) -> None:
    """Write a checkpoint's tensors in the format that the target's name says, bit for bit.

    Prints the path that was written.

    \b
    Examples:
      ckptswap convert segment.safetensors segment.npz
      ckptswap convert segment.safetensors segment.pt
      ckptswap convert segment.safetensors shards/ --shard-size 200000
    """
    how = {"shard_size": shard_size or SHARD_SIZE, "drop_unread": drop_unread, "force": force, **prefix}
    emit(str(api.convert(source, target, **how)))
