"""From one format into another, streaming, values bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import listing
from ckptswap.formats import SHARD_SIZE, open_checkpoint, write_checkpoint
from ckptswap.formats.companions import companions
from ckptswap.watching import Progress


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    shard_size: int = SHARD_SIZE,
    drop_unread: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the tensors of `source` in the format that `target`'s name says, and return where they are.

    Metadata survives, with `metadata` added; where a folder becomes a folder, its other files come along, and what
    does not is told by `left_behind`. Raises `FormatError` for what the target's format cannot hold, and for
    values that are not read, unless `drop_unread`; see `open_checkpoint` and `write_checkpoint` for the rest.

    >>> import numpy as np, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> np.savez(f"{folder.name}/a.npz", w=np.arange(3.0))
    >>> with open_checkpoint(convert(f"{folder.name}/a.npz", f"{folder.name}/a.pt")) as checkpoint:
    ...     checkpoint.format, checkpoint.read("w").tolist()
    ('torch', [0.0, 1.0, 2.0])
    >>> folder.cleanup()
    """
    with open_checkpoint(source) as checkpoint:
        return write_checkpoint(
            checkpoint,
            target,
            metadata=metadata,
            force=force,
            shard_size=shard_size,
            drop_unread=drop_unread,
            progress=progress,
            others=companions(checkpoint).taken,
        )


def left_behind(source: Checkpoint, target: str | os.PathLike[str]) -> list[str]:
    """What a checkpoint holds that is not written when it is converted, a sentence each."""
    files = companions(source).staying(into_folder=os.fspath(target).endswith("/"))
    left = {"what lies beside the tensors is not written": source.beside,
            "these files beside the weights are not taken along": files}  # fmt: skip
    return [f"{source.path}: {what}: {listing(names)}" for what, names in left.items() if names]
