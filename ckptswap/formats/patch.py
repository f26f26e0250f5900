"""A safetensors file with some tensors' bytes replaced: the kernel copies it, only those ranges are written."""

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import FormatError
from ckptswap.formats.companions import take_along
from ckptswap.formats.safetensors import encode_header, pad_header
from ckptswap.formats.sharded import DEFAULT_INDEX, new_folder, write_index
from ckptswap.formats.target import Target
from ckptswap.sources import PAGE, FileRange
from ckptswap.storage import ByteSource, LocalFile
from ckptswap.watching import Watch

FORMATS = (
    "safetensors", "sharded safetensors", "smp folder", "transformers folder", "timm folder", "peft adapter",
)  # fmt: skip
COPY = 1 << 25
"""Bytes that the kernel is asked to copy at once: few enough to show progress, and to begin writing back early."""

Metadata = Mapping[str, str]


@dataclass(frozen=True)
class Patch:
    """One file, the entries in it (under the names that they will have), and what replaces some of them."""

    file: LocalFile
    entries: tuple[Entry, ...]
    replaced: Mapping[str, Entry]

    @property
    def start(self) -> int:
        """Where the tensors begin, after the header."""
        return min(map(_place, self.entries))

    @property
    def nbytes(self) -> int:
        """Bytes to be written, those twice that are copied first and replaced then; a header only when copied."""
        header = self.start if self.replaced else 0
        return self.file.size - header + sum(entry.nbytes for entry in self.replaced.values())

    def write(self, target: Target, final: Callable[[], Metadata]) -> None:
        """Write the patched file. The header is written last, into room that the target's metadata keep.

        The data keeps its place modulo a page, without which the kernel could neither share nor quickly copy it.
        """
        old_start = self.start
        begins = {entry.name: _place(entry) - old_start for entry in self.entries}
        offsets = {entry.name: (begins[entry.name], begins[entry.name] + entry.nbytes) for entry in self.entries}
        room = len(encode_header(self.entries, offsets, target.metadata))
        new_start = room + (old_start - room) % PAGE
        with target.file() as out:
            copy_file(self.file, old_start, out, new_start, target.watch)
            for name, entry in self.replaced.items():
                _overwrite(entry, out, new_start + begins[name], target.watch)
            out.write(pad_header(encode_header(self.entries, offsets, final()), new_start))
            self.file.check_unchanged()


@dataclass(frozen=True)
class FolderPatch:
    """A folder of such files: what changes is patched, the rest copied, or hard-linked with `link`. An index is
    written unless the one file needs none."""

    parts: Sequence[Patch]
    link: bool
    has_index: bool

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def write(self, target: Target, final: Callable[[], Metadata]) -> None:
        """Write it as a new folder with the target's `others`; it appears whole or not at all."""
        with new_folder(target.path) as beside:
            for part in self.parts:
                shard = target.at(beside / part.file.path.name, target.metadata)
                if part.replaced:
                    part.write(shard, final)
                elif self.link:
                    os.link(os.path.realpath(part.file.path), shard.path)
                    target.watch(part.nbytes)
                else:
                    with shard.file() as out:
                        copy_file(part.file, 0, out, 0, target.watch)
                        part.file.check_unchanged()
            take_along(target.others, beside)
            if self.has_index:
                shards = {part.file.path.name: part.entries for part in self.parts}
                write_index(beside / DEFAULT_INDEX, shards, final())


def patches(recipient: Checkpoint, replaced: Mapping[str, Entry]) -> list[Patch] | None:
    """A recipient in safetensors files as one patch a file; None where its tensors do not lie in such files."""
    if recipient.format not in FORMATS:
        return None
    files: dict[LocalFile, dict[str, Entry]] = {}
    for entry in recipient.values():
        if not isinstance(entry.source, FileRange) or not isinstance(entry.source.file, LocalFile):
            return None
        files.setdefault(entry.source.file, {})[entry.name] = entry
    return [Patch(file, tuple(own.values()), {name: replaced[name] for name in own if name in replaced})
            for file, own in files.items()]  # fmt: skip


def _place(entry: Entry) -> int:
    assert isinstance(entry.source, FileRange)
    return entry.source.offset


def copy_file(file: ByteSource, start: int, out: BinaryIO, at: int, watch: Watch) -> None:
    """The kernel's own copy, which shares blocks where the file system can; plain reads where it cannot copy.

    Each stretch ends at a multiple of its size in the new file, where the page cache can then use large folios,
    which saves a third of the processor's time.
    """
    while start < file.size:
        size = min(COPY - at % COPY, file.size - start)
        count = _copied(file, start, out, at, size)
        if count == 0:
            raise FormatError(f"{file.name} ended at byte {start}", remedy="it was cut short while being copied")
        # Ask for what was just written to go to the disk while more is copied, so that the fsync has little left
        # to do: 0.03 s instead of 0.5 s for 1 GB. Linux takes this advice on dirty pages for just that.
        with contextlib.suppress(OSError):
            os.posix_fadvise(out.fileno(), at, count, os.POSIX_FADV_DONTNEED)
        start, at = start + count, at + count
        watch(count)


def _copied(file: ByteSource, start: int, out: BinaryIO, at: int, size: int) -> int:
    if isinstance(file, LocalFile):
        try:
            with file.descriptor() as source:
                return os.copy_file_range(source, out.fileno(), size, start, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    return os.pwrite(out.fileno(), file.pread(size, start), at)


def _overwrite(entry: Entry, out: BinaryIO, at: int, watch: Watch) -> None:
    for chunk in entry.chunks():
        done = 0
        while done < len(chunk):
            done += os.pwrite(out.fileno(), chunk.data[done:], at + done)
        at += len(chunk)
        watch(len(chunk))
