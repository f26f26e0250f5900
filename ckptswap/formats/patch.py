"""A safetensors file with some tensors' bytes replaced: the kernel copies it, only those ranges are written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ckptswap.checkpoint import PAGE, Checkpoint, Entry
from ckptswap.errors import FormatError
from ckptswap.formats.atomic import atomic_file, write_text
from ckptswap.formats.companions import Companion, take_along
from ckptswap.formats.safetensors import encode_header, pad_header
from ckptswap.formats.sharded import DEFAULT_INDEX, new_folder
from ckptswap.formats.streaming import Watch
from ckptswap.storage import FileRange, LocalFile

FORMATS = ("safetensors", "sharded safetensors", "smp folder")

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


def patches(recipient: Checkpoint, replaced: Mapping[str, Entry]) -> list[Patch] | None:
    """A recipient in safetensors files as one patch a file; None where its tensors do not lie in such files."""
    if recipient.format not in FORMATS:
        return None
    files: dict[int, tuple[LocalFile, list[Entry]]] = {}
    for entry in recipient.values():
        if not isinstance(entry.source, FileRange) or not isinstance(entry.source.file, LocalFile):
            return None
        files.setdefault(id(entry.source.file), (entry.source.file, []))[1].append(entry)
    return [
        Patch(
            file, tuple(entries), {entry.name: replaced[entry.name] for entry in entries if entry.name in replaced}
        )
        for file, entries in files.values()
    ]


def patch_file(
    patch: Patch,
    target: Path,
    *,
    draft: Metadata,
    metadata: Callable[[], Metadata],
    force: bool,
    watch: Watch,
    made_of: Sequence[Path] = (),
) -> None:
    """Write the patched file, atomically. The header is written last, when `metadata()` is known, into room that
    `draft` (no shorter than it) keeps.

    The data keeps its place modulo a page, without which the kernel could neither share nor quickly copy it.
    Raises `FileError` when something is in the way or the file changed meanwhile.
    """
    places = {entry.name: _place(entry) for entry in patch.entries}
    old_start = patch.start
    offsets = {
        entry.name: (places[entry.name] - old_start, places[entry.name] - old_start + entry.nbytes)
        for entry in patch.entries
    }
    room = len(encode_header(patch.entries, offsets, draft))
    new_start = room + (old_start - room) % PAGE
    with atomic_file(target, force=force, made_of=made_of) as out:
        copy_file(patch.file, old_start, out, new_start, watch)
        for name, entry in patch.replaced.items():
            _overwrite(entry, out, places[name] - old_start + new_start, watch)
        out.write(pad_header(encode_header(patch.entries, offsets, metadata()), new_start))
        patch.file.check_unchanged()


def patch_folder(
    parts: Sequence[Patch],
    folder: Path,
    *,
    draft: Metadata,
    metadata: Callable[[], Metadata],
    link: bool,
    watch: Watch,
    made_of: Sequence[Path] = (),
    index: bool = True,
    others: Iterable[Companion] = (),
) -> None:
    """Write a new folder of shards, the `others` that go with them, and an `index` unless the one file needs none:
    what changes is patched, the rest copied, or hard-linked with `link`. The folder appears whole or not at all;
    raises `FileError` when it exists."""
    with new_folder(folder) as beside:
        places: dict[str, str] = {}
        for part in parts:
            shard = beside / part.file.path.name
            places |= {entry.name: shard.name for entry in part.entries}
            if part.replaced:
                patch_file(part, shard, draft=draft, metadata=metadata, force=False, made_of=made_of, watch=watch)
            elif link:
                os.link(os.path.realpath(part.file.path), shard)
                watch(part.nbytes)
            else:
                with atomic_file(shard, force=False, made_of=made_of) as out:
                    copy_file(part.file, 0, out, 0, watch)
                    part.file.check_unchanged()
        take_along(others, beside)
        if not index:
            return
        total = sum(entry.nbytes for part in parts for entry in part.entries)
        listing = {"metadata": {**metadata(), "total_size": total}, "weight_map": places}
        write_text(beside / DEFAULT_INDEX, json.dumps(listing, indent=2) + "\n")


def _place(entry: Entry) -> int:
    assert isinstance(entry.source, FileRange)
    return entry.source.offset


def copy_file(file: LocalFile, start: int, out: BinaryIO, at: int, watch: Watch) -> None:
    """The kernel's own copy, which shares blocks where the file system can; plain reads where it cannot copy.

    Each stretch ends at a multiple of its size in the new file, where the page cache can then use large folios,
    which saves a third of the processor's time.
    """
    while start < file.size:
        size = min(COPY - at % COPY, file.size - start)
        try:
            with file.descriptor() as source:
                count = os.copy_file_range(source, out.fileno(), size, start, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            count = os.pwrite(out.fileno(), file.pread(size, start), at)
        if count == 0:
            raise FormatError(f"{file.name} ended at byte {start}", remedy="it was cut short while being copied")
        _write_back(out, at, count)
        start, at = start + count, at + count
        watch(count)


def _write_back(out: BinaryIO, at: int, count: int) -> None:
    """Ask for what was just written to go to the disk while more is copied, so that the fsync has little left to
    do: 0.03 s instead of 0.5 s for 1 GB. Linux takes this advice on dirty pages for just that, without waiting."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(out.fileno(), at, count, os.POSIX_FADV_DONTNEED)


def _overwrite(entry: Entry, out: BinaryIO, at: int, watch: Watch) -> None:
    for chunk in entry.chunks():
        done = 0
        while done < len(chunk):
            done += os.pwrite(out.fileno(), chunk.data[done:], at + done)
        at += len(chunk)
        watch(len(chunk))
