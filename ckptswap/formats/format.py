"""What a format is: one file in this folder, and one line in `registry`."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import SIGN, Entry
from ckptswap.errors import FormatError
from ckptswap.formats.target import Target
from ckptswap.storage import ByteSource, Folder

INDEX = ".index.json"  # how the names of files end that list the files of one checkpoint


@dataclass(frozen=True)
class Format:
    """A way in which checkpoints are stored; another package declares one as an entry point `ckptswap.formats`.

    - `open(source, folder)` gives the `Checkpoint` whose bytes `source` holds; `folder` opens the files beside it.
      It reads by `source.pread` and `pread_into` alone, runs nothing that the file holds, and raises `FormatError`
      for what is damaged or hostile. The checkpoint gets its `sources`, which it closes, and their `checksums`.
    - `what` says what a file is, after "is": "a zip archive, as torch writes them".
    - `claims(head, source)`: whether a file whose first 512 bytes are `head` is of this format.
    - `inside(folder)`: the name of the file by which a whole folder is of this format, None where it is not.
    - `suffixes` are the endings of its files' names; `promised`: no file of another format may have them.
    - `open_at(source, folder, key)`: the map under a key of a file that holds several; None where each holds one.
    - `write(entries, target)` streams entries into `target.path`, atomically; it raises `FormatError` for what the
      format cannot hold.

    >>> from ckptswap.storage import LocalFolder, MemoryFile
    >>> from ckptswap.checkpoint import Tensor
    >>> from ckptswap.sources import FileRange
    >>> def bytes_of(source, folder):
    ...     tensor = Tensor("bytes", (source.size,), "U8", FileRange(source, 0))
    ...     return Checkpoint([tensor], path=source.name, format="bytes", sources=[source])
    >>> raw = Format("bytes", bytes_of, suffixes=(".raw",))
    >>> raw.open(MemoryFile(b"ab", "a.raw"), LocalFolder(".")).read("bytes").tolist()
    [97, 98]
    """

    name: str
    open: Callable[[ByteSource, Folder], Checkpoint]
    what: str = ""
    claims: Callable[[bytes, ByteSource], bool] = lambda head, source: False
    inside: Callable[[Folder], str | None] = lambda folder: None
    suffixes: tuple[str, ...] = ()
    promised: bool = False
    write: Callable[[Iterable[Entry], Target], None] | None = None
    open_at: Callable[[ByteSource, Folder, str], Checkpoint] | None = None

    def opened(self, source: ByteSource, folder: Folder, key: str | None) -> Checkpoint:
        """The checkpoint in a file, under a key where there is one. Raises `FormatError`, as `open` does."""
        if key is None:
            return self.open(source, folder)
        if self.open_at is None:
            fault = f"{source.name} holds one map of tensors ({self.name}), of which {SIGN}{key} is no part"
            raise FormatError(fault, remedy=f"leave {SIGN}{key} out; single tensors are chosen by --only")
        return self.open_at(source, folder, key)

    def is_named(self, name: str) -> bool:
        """Whether a file's name ends as this format's do."""
        return any(name.endswith(suffix) and name != suffix for suffix in self.suffixes)


@dataclass(frozen=True)
class CheckpointSource:
    """What `NAME:rest` means where a command takes a checkpoint, NAME being what it is registered by: `open(rest)`
    gives the checkpoint, `absolute(rest)` what leads to the same one from any folder."""

    open: Callable[[str], Checkpoint]
    absolute: Callable[[str], str] = os.path.abspath
