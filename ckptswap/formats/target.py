"""Where a checkpoint is written, and how; values into a file, a chunk at a time."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ckptswap.entries import Entry
from ckptswap.formats.atomic import atomic_file
from ckptswap.formats.companions import Companion
from ckptswap.watching import Watch, unwatched

SHARD_SIZE = 5_000_000_000  # bytes of tensors in a shard, as Hugging Face's tools choose by default


@dataclass(frozen=True)
class Target:
    """A file or folder to be written: what it says of itself, and whether it may replace a file (`force`).

    It may be read by nobody who may not read all files that it is `made_of`. Shards have at most `shard_size`
    bytes of tensors, a folder takes the `others` along, and `watch` is told of the bytes that are done.
    """

    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    made_of: Sequence[Path] = ()
    watch: Watch = unwatched
    shard_size: int = SHARD_SIZE
    others: Sequence[Companion] = ()

    def file(self) -> AbstractContextManager[BinaryIO]:
        """A file that takes the path when the block ends well; see `atomic_file`."""
        return atomic_file(self.path, force=self.force, made_of=self.made_of)

    def at(self, path: Path, metadata: Mapping[str, str] | None = None) -> "Target":
        """A new file among several."""
        return replace(self, path=path, metadata=metadata or {}, force=False)

    def stream(self, entry: Entry, file: BinaryIO) -> None:
        """Write all of a tensor's bytes into a file."""
        for chunk in entry.chunks():
            file.write(chunk.data)
            self.watch(len(chunk))
