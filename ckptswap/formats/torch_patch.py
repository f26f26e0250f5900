"""A file of `torch.save` with some tensors' bytes replaced where they lie: its pickle, and all else in it, stays.

So a training checkpoint keeps its hyperparameters, its optimizer's state and its versions, without anybody having
to understand them. A zip is written anew member by member, since checksums change; a file from before torch 1.6,
which has none, is copied by the kernel.
"""

from __future__ import annotations

import json
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ckptswap.checkpoint import CHUNK, Checkpoint, Entry, MemorySource, Source, page_aligned
from ckptswap.formats import torch_legacy, torch_zip
from ckptswap.formats.archive import Archive, Member
from ckptswap.formats.atomic import atomic_file
from ckptswap.formats.patch import copy_file
from ckptswap.formats.streaming import Watch, unwatched
from ckptswap.formats.strided import PieceSource
from ckptswap.formats.torch_beside import keys_of
from ckptswap.formats.torch_pickle import View, span
from ckptswap.formats.zip_writer import add_member
from ckptswap.storage import ByteSource, FileRange, LocalFile

FORMATS = (torch_zip.FORMAT, torch_legacy.FORMAT)
Metadata = Mapping[str, str]


@dataclass(frozen=True)
class Splice:
    """Bytes `begin` … `end` of the recipient's file, and what takes their place."""

    begin: int
    end: int
    entry: Entry
    replacement: Entry

    def source(self) -> Source:
        """The new bytes; what lies between those of a view with strides is the recipient's."""
        ours = self.entry.source
        if isinstance(ours, FileRange):
            return self.replacement.source
        assert isinstance(ours, PieceSource)
        [piece] = ours.pieces
        raw = page_aligned(self.end - self.begin)
        piece.file.pread_into(raw.data, self.begin)
        new = page_aligned(self.replacement.nbytes)
        self.replacement.source.read_into(new.data, 0)
        words = np.dtype((np.void, ours.itemsize))
        view = np.ndarray(ours.shape, words, raw, strides=piece.strides)
        view[...] = new.view(words).reshape(ours.shape)
        return MemorySource(raw.data)


def splices(recipient: Checkpoint, replaced: Mapping[str, Entry]) -> list[Splice] | None:
    """What to replace in a file of torch; None where the recipient is no such file, or it cannot be done in place.

    It cannot where the tensors have other names than in the file, where bytes of a replaced one are those of
    another that stays or becomes something else, and where its own elements share bytes (an expanded view).
    """
    if recipient.format not in FORMATS or recipient.renames or not all(map(_has_place, recipient.values())):
        return None
    if any(_overlaps_itself(recipient[name].source) for name in replaced):
        return None
    found = [
        Splice(*_span(entry), entry, replaced.get(name, entry))
        for name, entry in recipient.items()
        if entry.nbytes
    ]
    found.sort(key=lambda each: (each.begin, each.end))
    if any(_disagree(a, b) for a, b in _overlapping(found)):
        return None
    return [each for each in _distinct(found) if each.replacement is not each.entry]


def _has_place(entry: Entry) -> bool:
    source = entry.source
    return isinstance(source, FileRange) or (isinstance(source, PieceSource) and len(source.pieces) == 1)


def _span(entry: Entry) -> tuple[int, int]:
    source = entry.source
    if isinstance(source, FileRange):
        return source.offset, source.offset + entry.nbytes
    assert isinstance(source, PieceSource)
    [piece] = source.pieces
    steps = ((size - 1) * stride for size, stride in zip(source.shape, piece.strides, strict=True))
    return piece.offset, piece.offset + sum(steps) + source.itemsize


def _overlaps_itself(source: Source) -> bool:
    """Whether two elements of a view may lie in the same bytes: each stride has to step over all smaller ones."""
    if not isinstance(source, PieceSource):
        return False
    [piece] = source.pieces
    reach = source.itemsize
    for stride, size in sorted(zip(piece.strides, source.shape, strict=True)):
        if size > 1 and stride < reach:
            return True
        reach += (size - 1) * stride
    return False


def _overlapping(found: Sequence[Splice]) -> Iterator[tuple[Splice, Splice]]:
    """Each, in the order of their beginnings, with the one before it that reaches farthest, where they meet."""
    farthest: Splice | None = None
    for each in found:
        if farthest is not None and each.begin < farthest.end:
            yield farthest, each
        if farthest is None or each.end > farthest.end:
            farthest = each


def _disagree(a: Splice, b: Splice) -> bool:
    """Whether two that share bytes cannot both have what they should."""
    if all(each.replacement is each.entry for each in (a, b)):
        return False
    alike = (a.begin, a.end, a.entry.shape, a.entry.dtype) == (b.begin, b.end, b.entry.shape, b.entry.dtype)
    if not alike or isinstance(a.entry.source, PieceSource) or isinstance(b.entry.source, PieceSource):
        return True
    pairs = zip(a.replacement.chunks(), b.replacement.chunks(), strict=True)
    return any(not np.array_equal(x, y) for x, y in pairs)


def _distinct(found: Sequence[Splice]) -> Iterator[Splice]:
    """One of those that fill the same bytes."""
    yield from found[:1]
    yield from (after for before, after in pairwise(found) if after.begin >= before.end or after.end > before.end)


def sharing(recipient: Checkpoint, replaced: Sequence[Splice]) -> list[str]:
    """The keys beside the model's tensors under which others lie in bytes that are to be replaced.

    Averages that were saved before they left the weights are such: what is put into the one is then in both.
    """
    if not recipient.beside or not replaced:
        return []
    taken = [(each.begin, each.end) for each in replaced]
    begins = [begin for begin, _ in taken]
    with closing(LocalFile(recipient.files[0])) as file:
        is_old = recipient.format == torch_legacy.FORMAT
        content, locate = torch_legacy.read_content(file) if is_old else torch_zip.read_content(Archive(file))

        def is_taken(view: View) -> bool:
            start = locate(view.storage).offset
            begin, end = (start + place for place in span(view))
            before = bisect_left(begins, end) - 1
            return begin < end and before >= 0 and taken[before][1] > begin

        return keys_of(content, is_taken)


def patched_bytes(recipient: Checkpoint, replaced: Sequence[Splice]) -> int:
    """How many bytes `patch_torch` tells its watch of."""
    with closing(LocalFile(recipient.files[0])) as file:
        if recipient.format == torch_legacy.FORMAT:
            return file.size + sum(each.end - each.begin for each in replaced)
        return sum(member.size for member in _kept(Archive(file)))


def patch_torch(
    recipient: Checkpoint,
    replaced: Sequence[Splice],
    target: Path,
    *,
    metadata: Callable[[], Metadata],
    force: bool,
    made_of: Sequence[Path] = (),
    watch: Watch,
) -> None:
    """Write the recipient's file with these bytes replaced, atomically. A zip also says where it came from; an
    older file has no room for that. Raises `FileError` where something is in the way, or the recipient changed."""
    with closing(LocalFile(recipient.files[0])) as file, atomic_file(target, force=force, made_of=made_of) as out:
        if recipient.format == torch_legacy.FORMAT:
            _patch_plain(file, replaced, out, watch)
        else:
            _patch_zip(file, replaced, out, metadata, watch)
        recipient.check_files()


def _patch_plain(file: LocalFile, replaced: Sequence[Splice], out: BinaryIO, watch: Watch) -> None:
    copy_file(file, 0, out, 0, watch)
    for each in replaced:
        out.seek(each.begin)
        _write(_stretch(each.source(), each.end - each.begin), out, watch)


def _patch_zip(
    file: LocalFile, replaced: Sequence[Splice], out: BinaryIO, metadata: Callable[[], Metadata], watch: Watch
) -> None:
    archive = Archive(file)
    said = _origin_of(archive)
    with zipfile.ZipFile(out, "w") as made:
        made.comment = archive.comment
        rest = sorted(replaced, key=lambda each: each.begin, reverse=True)
        for member in _kept(archive):
            inside = []
            while member.is_stored and rest and rest[-1].begin < member.offset + member.size:
                inside.append(rest.pop())
            add_member(made, member.name, member.size, _filler(archive, member, inside, watch))
        raw = json.dumps(dict(metadata())).encode("ascii")
        add_member(made, said, len(raw), lambda into: _write([memoryview(raw)], into, unwatched))


def _origin_of(archive: Archive) -> str:
    """The member that tells where a file of ours came from."""
    return f"{torch_zip.prefix_of(archive)}/{torch_zip.METADATA}"


def _kept(archive: Archive) -> list[Member]:
    """All other members, in the order in which they lie in the file."""
    said = _origin_of(archive)
    return sorted((each for each in archive.members.values() if each.name != said), key=lambda each: each.offset)


def _filler(
    archive: Archive, member: Member, inside: Sequence[Splice], watch: Watch
) -> Callable[[BinaryIO], None]:
    """Writes a member: its own bytes up to each replacement, the replacement, and its own again."""
    file, start = archive.place(member.name)

    def fill(out: BinaryIO) -> None:
        at = 0
        for each in inside:
            _write(_own(file, start + at, each.begin - member.offset - at), out, watch)
            _write(_stretch(each.source(), each.end - each.begin), out, watch)
            at = each.end - member.offset
        _write(_own(file, start + at, member.size - at), out, watch)

    return fill


def _own(file: ByteSource, start: int, size: int) -> Iterator[memoryview]:
    return _stretch(FileRange(file, start), size)


def _stretch(source: Source, size: int) -> Iterator[memoryview]:
    """The first `size` bytes of a source, chunk by chunk, in a buffer that is used again."""
    buffer = page_aligned(min(CHUNK, size))
    for at in range(0, size, CHUNK):
        part = buffer[: min(CHUNK, size - at)].data
        source.read_into(part, at)
        yield part


def _write(parts: Iterable[memoryview], out: BinaryIO, watch: Watch) -> None:
    for part in parts:
        out.write(part)
        watch(len(part))
