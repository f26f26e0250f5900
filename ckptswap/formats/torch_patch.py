"""A file that torch saved with some tensors' bytes replaced where they lie: its pickle, and all else in it, stays.

So a training checkpoint keeps its hyperparameters, its optimizer's state and its versions, without anybody having
to understand them. A zip is written anew member by member, since checksums change; a file from before torch 1.6,
which has none, is copied by the kernel.
"""

import json
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.formats import torch_legacy, torch_zip, torchscript
from ckptswap.formats.archive import Archive, Member, add_bytes, add_member
from ckptswap.formats.patch import Metadata, copy_file
from ckptswap.formats.strided import PieceSource
from ckptswap.formats.target import Target
from ckptswap.formats.torch_pickle import Locate, View
from ckptswap.formats.torch_tensors import keys_holding
from ckptswap.sources import FileRange, MemorySource, TensorSource, chunks, page_aligned
from ckptswap.storage import ByteSource
from ckptswap.twins import alike
from ckptswap.watching import Watch

_READERS: Mapping[str, Callable[[ByteSource], tuple[Any, Locate]]] = {
    torch_zip.FORMAT.name: lambda file: torch_zip.read_content(Archive(file)),
    torchscript.FORMAT.name: lambda file: torchscript.read_script(Archive(file)),
    torch_legacy.FORMAT.name: torch_legacy.read_content,
}
"""The formats that can be patched, and what reads their pickles."""


@dataclass(frozen=True)
class Splice:
    """Bytes `begin` … `end` of the recipient's file, and what takes their place."""

    begin: int
    end: int
    entry: Entry
    replacement: Entry

    def source(self) -> TensorSource:
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


@dataclass(frozen=True)
class TorchPatch:
    """A file of torch whose bytes are replaced in these places."""

    recipient: Checkpoint
    replaced: Sequence[Splice]

    @property
    def file(self) -> ByteSource:
        [file] = self.recipient.sources
        return file

    @property
    def is_old(self) -> bool:
        """Whether it was saved before torch 1.6, and so has no room to say where it came from."""
        return self.recipient.format == torch_legacy.FORMAT.name

    @property
    def nbytes(self) -> int:
        if self.is_old:
            return self.file.size + sum(splice.end - splice.begin for splice in self.replaced)
        return sum(member.size for member in _kept(Archive(self.file)))

    def sharing(self) -> list[str]:
        """The keys beside the model's tensors under which others lie in bytes that are to be replaced.

        Averages that were saved before they left the weights are such: what is put into the one is then in both.
        """
        if not self.recipient.beside or not self.replaced:
            return []
        taken = [(splice.begin, splice.end) for splice in self.replaced]
        begins = [begin for begin, _ in taken]
        content, locate = _READERS[self.recipient.format](self.file)

        def is_taken(view: View) -> bool:
            start = locate(view.storage).offset
            begin, end = (start + place for place in view.span)
            before = bisect_left(begins, end) - 1
            return begin < end and before >= 0 and taken[before][1] > begin

        return keys_holding(content, self.recipient.key, is_taken)

    def write(self, target: Target, final: Callable[[], Metadata]) -> None:
        """Write the recipient's file with these bytes replaced. A zip also says where it came from."""
        with target.file() as out:
            if self.is_old:
                copy_file(self.file, 0, out, 0, target.watch)
                for splice in self.replaced:
                    out.seek(splice.begin)
                    _write(splice.source(), splice.end - splice.begin, out, target.watch)
            else:
                _patch_zip(self.file, self.replaced, out, final, target.watch)
            self.recipient.check_files()


def torch_patch(recipient: Checkpoint, replaced: Mapping[str, Entry]) -> TorchPatch | None:
    """What to replace in a file of torch; None where the recipient is not such a file, or it cannot be done.

    It cannot where the tensors have other names than in the file, where bytes of a replaced one are those of
    another that stays or becomes something else, and where its own elements share bytes (an expanded view).
    """
    if recipient.format not in _READERS or recipient.renames:
        return None
    placed = {name: entry for name, entry in recipient.items() if _has_place(entry, recipient.sources)}
    if any(name not in placed or _overlaps_itself(placed[name].source) for name in replaced):
        return None
    splices = [Splice(*_span(entry), entry, replaced.get(name, entry))
               for name, entry in placed.items() if entry.nbytes]  # fmt: skip
    splices.sort(key=lambda splice: (splice.begin, splice.end))
    if any(_disagree(a, b) for a, b in _overlapping(splices)):
        return None
    # One of those that fill the same bytes, and of these what changes.
    distinct = [*splices[:1], *(b for a, b in pairwise(splices) if b.begin >= a.end or b.end > a.end)]
    return TorchPatch(recipient, [splice for splice in distinct if splice.replacement is not splice.entry])


def _has_place(entry: Entry, files: Sequence[ByteSource]) -> bool:
    """Whether it is one stretch of the file itself, and not of what its pickle holds."""
    source = entry.source
    if isinstance(source, PieceSource):
        return len(source.pieces) == 1 and source.pieces[0].file in files
    return isinstance(source, FileRange) and source.file in files


def _span(entry: Entry) -> tuple[int, int]:
    source = entry.source
    if isinstance(source, FileRange):
        return source.offset, source.offset + entry.nbytes
    assert isinstance(source, PieceSource)
    [piece] = source.pieces
    steps = ((size - 1) * stride for size, stride in zip(source.shape, piece.strides, strict=True))
    return piece.offset, piece.offset + sum(steps) + source.itemsize


def _overlaps_itself(source: TensorSource) -> bool:
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


def _overlapping(splices: Sequence[Splice]) -> Iterator[tuple[Splice, Splice]]:
    """Each, in the order of their beginnings, with the one before it that reaches farthest, where they meet."""
    farthest: Splice | None = None
    for splice in splices:
        if farthest is not None and splice.begin < farthest.end:
            yield farthest, splice
        if farthest is None or splice.end > farthest.end:
            farthest = splice


def _disagree(a: Splice, b: Splice) -> bool:
    """Whether two that share bytes cannot both have what they should."""
    if a.replacement is a.entry and b.replacement is b.entry:
        return False
    is_one_place = (a.begin, a.end, a.entry.shape, a.entry.dtype) == (b.begin, b.end, b.entry.shape, b.entry.dtype)
    if not is_one_place or isinstance(a.entry.source, PieceSource) or isinstance(b.entry.source, PieceSource):
        return True
    return not alike(a.replacement, b.replacement)


def _patch_zip(
    file: ByteSource, replaced: Sequence[Splice], out: BinaryIO, final: Callable[[], Metadata], watch: Watch
) -> None:
    archive = Archive(file)
    origin = _origin_of(archive)
    with zipfile.ZipFile(out, "w") as made:
        made.comment = archive.comment
        rest = sorted(replaced, key=lambda splice: splice.begin, reverse=True)
        for member in _kept(archive):
            inside = []
            while member.is_stored and rest and rest[-1].begin < member.offset + member.size:
                inside.append(rest.pop())
            add_member(made, member.name, member.size, _filler(archive, member, inside, watch))
        add_bytes(made, origin, json.dumps(dict(final())).encode("ascii"))


def _origin_of(archive: Archive) -> str:
    """The member that tells where a file of ours came from."""
    return f"{torch_zip.prefix_of(archive)}/{torch_zip.METADATA}"


def _kept(archive: Archive) -> list[Member]:
    """All other members, in the order in which they lie in the file."""
    origin = _origin_of(archive)
    members = (member for member in archive.members.values() if member.name != origin)
    return sorted(members, key=lambda member: member.offset)


def _filler(
    archive: Archive, member: Member, inside: Sequence[Splice], watch: Watch
) -> Callable[[BinaryIO], None]:
    """Writes a member: its own bytes up to each replacement, the replacement, and its own again."""
    file, start = archive.place(member.name)

    def fill(out: BinaryIO) -> None:
        at = 0
        for splice in inside:
            _write(FileRange(file, start + at), splice.begin - member.offset - at, out, watch)
            _write(splice.source(), splice.end - splice.begin, out, watch)
            at = splice.end - member.offset
        _write(FileRange(file, start + at), member.size - at, out, watch)

    return fill


def _write(source: TensorSource, size: int, out: BinaryIO, watch: Watch) -> None:
    for part in chunks(source, size):
        out.write(part.data)
        watch(len(part))
