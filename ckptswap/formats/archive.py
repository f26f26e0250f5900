"""Zip archives read with suspicion: every member's place is known and checked before a byte of it is used. And
written as torch and numpy like them: members stored, each beginning at a multiple of 64 bytes."""

import io
import struct
import threading
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ckptswap.checkpoint import Damage
from ckptswap.errors import FormatError
from ckptswap.sources import FileRange, chunks
from ckptswap.storage import ByteSource
from ckptswap.watching import Watch

ZIP_MAGIC = b"PK\x03\x04"
RATIO_MOST = 1032  # no deflate stream grows more than this many times; a size beyond it is a lie
BLOCK = 1 << 20
BLOCKS_KEPT = 64
HEAD = 16 << 10  # bytes of a compressed member that are unpacked to look at its header: a file may have very many
ALIGNMENT = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP64_MOST = 0x7FFF_FFFF / 1.05  # beyond this size zipfile adds its own 20 bytes to a member's header
_ZIP64_EXTRA = 20
_PADDING_TAG = 0x4246  # "FB", which torch uses
_END_RECORD = 22
_COUNT_IN_ZIP64 = 0xFFFF
_ZIP64_RECORD, _ZIP64_LOCATOR = 56, 20
_LOCAL_HEADER = struct.Struct("<4s2xHH4xIIIHH")
_LATER, _IN_EXTRA = 0x8, 0xFFFF_FFFF  # a flag, and a size: told behind the bytes, or in 64 bits
_FAULTS = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, LookupError, OverflowError, OSError)
_UNPACK_FAULTS = (*_FAULTS, zlib.error, EOFError, RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; `offset` is where its bytes, packed or not, begin: of an archive that lies far away
    the least that it can be, as its local header is fetched no sooner than its bytes."""

    name: str
    offset: int
    size: int
    crc: int
    is_stored: bool


class Archive:
    """The members of a zip archive. Raises `FormatError` where the archive contradicts itself."""

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._inflating: tuple[str, zipfile.ZipExtFile] | None = None
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._head = "", b""
        self._far: dict[str, FarMember] = {}
        try:
            self._zip = zipfile.ZipFile(io.BufferedReader(RawReader(file)))
        except _FAULTS as error:
            raise self._refusal(_first_line(error)) from None
        self._check_end()
        infos = self._zip.infolist()
        self.members = {info.filename: self._member(info) for info in infos}
        if len(self.members) < len(infos):
            [(name, _)] = Counter(info.filename for info in infos).most_common(1)
            raise self._refusal(f"it has {name!r} twice")
        self._refuse_overlap()

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def read(self, name: str, most: int, *, ignore_crc: int | None = None) -> bytes:
        """A whole stored member of at most `most` bytes, its CRC checked unless it is recorded as `ignore_crc`."""
        member = self.stored(name)
        if member.size > most:
            raise self._refusal(f"{name!r} takes {member.size:,} B; {most:,} is the most")
        file, start = self.place(name)
        raw = file.pread(member.size, start)
        if member.crc != ignore_crc and zlib.crc32(raw) != member.crc:
            raise self._refusal(f"{name!r} is damaged (its CRC is wrong)")
        return raw

    def stored(self, name: str) -> Member:
        """The member of that name; raises `FormatError` when it is missing or compressed."""
        if name not in self.members:
            raise self._refusal(f"it has no {name!r}")
        if not self.members[name].is_stored:
            raise self._refusal(f"{name!r} is compressed, which torch never does")
        return self.members[name]

    def place(self, name: str) -> tuple[ByteSource, int]:
        """A byte source that has the member's bytes, and where they begin in it."""
        member = self.members[name]
        if not member.is_stored:
            return Inflated(self, name, member.size), 0
        if self.file.version is None:
            return self.file, member.offset
        return self._far.setdefault(name, FarMember(self, member)), 0

    def find(self, name: str) -> int:
        """Where a member's bytes begin, by its local header, which must agree with the directory."""
        info = self._zip.getinfo(name)
        offset = self._data_offset(info)
        if offset + info.compress_size > self.file.size:
            raise self._refusal(f"{name!r} is said to be larger than it can be")
        return offset

    @property
    def comment(self) -> bytes:
        """What the archive says of itself."""
        return self._zip.comment

    def checked(self) -> list[Member]:
        """The members that have a checksum; torch can be told to compute none, and then records zeros for all."""
        return list(self.members.values()) if any(member.crc for member in self.members.values()) else []

    def block(self, name: str, number: int) -> bytes:
        """A block of a compressed member; inflated in order, and kept for the threads that lag behind."""
        with self._lock:
            if (name, number) not in self._blocks:
                self._inflate(name, number)
            self._blocks.move_to_end((name, number))
            return self._blocks[name, number]

    def _inflate(self, name: str, number: int) -> None:
        try:
            if self._inflating is None or self._inflating[0] != name or self._inflating[1].tell() > number * BLOCK:
                self._inflating = name, self._zip.open(name)  # type: ignore[assignment]
            assert self._inflating is not None
            stream = self._inflating[1]
            for at in range(stream.tell() // BLOCK, number + 1):
                self._blocks[name, at] = stream.read(BLOCK)
                if len(self._blocks) > BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
        except _UNPACK_FAULTS as error:
            self._inflating = None
            raise self._refusal(f"{name!r} cannot be unpacked ({_first_line(error)})") from None

    def head(self, name: str) -> bytes:
        """The first bytes of a compressed member."""
        with self._lock:
            if self._head[0] != name:
                try:
                    with self._zip.open(name) as stream:
                        self._head = name, stream.read(HEAD)
                except _UNPACK_FAULTS as error:
                    raise self._refusal(f"{name!r} cannot be unpacked ({_first_line(error)})") from None
            return self._head[1]

    def is_sound(self, member: Member, watch: Watch) -> bool:
        """Whether its bytes have its CRC; all of them are read, in blocks."""
        crc = 0
        try:
            for part in chunks(FileRange(*self.place(member.name)), member.size):
                crc = zlib.crc32(part.data, crc)
                watch(len(part))
        except FormatError:
            return False
        return crc == member.crc

    def _check_end(self) -> None:
        """zipfile lets a cut comment, trailing bytes and swallowed members pass; the end record tells."""
        size = _END_RECORD + len(self.comment)
        tail = self.file.pread(size, self.file.size - size)
        count, length = (int.from_bytes(tail[at : at + 2], "little") for at in (10, _END_RECORD - 2))
        if not tail.startswith(b"PK\x05\x06") or length != len(self.comment):
            raise self._refusal("it does not end where it says")
        if count == _COUNT_IN_ZIP64:
            count = self._count_in_zip64(self.file.size - size)
        if count != len(self._zip.infolist()):
            raise self._refusal(f"its directory does not list {count:,} members")

    def _count_in_zip64(self, end: int) -> int:
        """How many members there are by the record in 64 bits, which its locator has to know, and which zipfile
        does not ask."""
        start = end - _ZIP64_RECORD - _ZIP64_LOCATOR
        raw = self.file.pread(end - start, start) if start >= 0 else b""
        if not raw.startswith(b"PK\x06\x06"):
            return _COUNT_IN_ZIP64
        count, located = (int.from_bytes(raw[at : at + 8], "little") for at in (32, _ZIP64_RECORD + 8))
        if located != start:
            raise self._refusal("its record in 64 bits does not lie where it says")
        return count

    def _refuse_overlap(self) -> None:
        """Members that share bytes make a small file a large one."""
        end, before = 0, ""
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise self._refusal(f"{info.filename!r} overlaps {before!r}")
            end, before = self.members[info.filename].offset + info.compress_size, info.filename

    def _member(self, info: zipfile.ZipInfo) -> Member:
        """The member's place by its local header, which must agree with the directory."""
        if info.flag_bits & 0x41:
            raise self._refusal(f"{info.filename!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._refusal(f"{info.filename!r} is compressed in a way we do not read")
        is_stored = info.compress_type == zipfile.ZIP_STORED
        packed, size = info.compress_size, info.file_size
        lied = packed != size if is_stored else size > RATIO_MOST * packed
        offset = self._data_offset(info) if self.file.version is None else self._least_offset(info)
        if lied or offset + packed > self.file.size:
            raise self._refusal(f"{info.filename!r} is said to be larger than it can be")
        return Member(info.filename, offset, size, info.CRC, is_stored)

    def _least_offset(self, info: zipfile.ZipInfo) -> int:
        if info.header_offset < 0:
            raise self._refusal(f"{info.filename!r} lies outside the file")
        return info.header_offset + _LOCAL_HEADER.size + len(info.orig_filename)

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        start = info.header_offset
        if start < 0 or start + _LOCAL_HEADER.size > self.file.size:
            raise self._refusal(f"{info.filename!r} lies outside the file")
        header = _LOCAL_HEADER.unpack(self.file.pread(_LOCAL_HEADER.size, start))
        magic, flags, method, *sums, name_length, extra_length = header
        name = self.file.pread(name_length, start + _LOCAL_HEADER.size)
        spelt = "utf-8" if info.flag_bits & 0x800 else "cp437"
        listed = info.CRC, info.compress_size, info.file_size
        elsewhere = {_IN_EXTRA} if extra_length else set()
        is_told = flags & _LATER or all(a == b or a in elsewhere for a, b in zip(sums, listed, strict=True))
        is_named = magic == ZIP_MAGIC and name == info.orig_filename.encode(spelt)
        if not is_named or method != info.compress_type or not is_told:
            raise self._refusal(f"its directory and its content disagree about {info.filename!r}")
        return start + _LOCAL_HEADER.size + name_length + extra_length

    def _refusal(self, fault: str) -> FormatError:
        return FormatError(f"{self.file.name} is not a sound zip archive", remedy=fault)


@dataclass(frozen=True)
class ZipChecksums:
    """The CRCs of all members of some archives; of one that lies far away, those that are read are held against
    theirs meanwhile."""

    archives: Sequence[ByteSource]

    def _near(self) -> Iterator[Archive]:
        return (Archive(file) for file in self.archives if file.version is None)

    def nbytes(self) -> int:
        return sum(member.size for archive in self._near() for member in archive.checked())

    def damage(self, watch: Watch) -> Iterator[Damage]:
        for archive in self._near():
            for member in archive.checked():
                if not archive.is_sound(member, watch):
                    yield Damage(
                        archive.file.name, f"its record {member.name[:200]!r} is damaged (its CRC is wrong)"
                    )


class FarMember(ByteSource):
    """A stored member of an archive that lies far away: looked for when it is read, and held against its checksum
    once all of it has come by in order."""

    def __init__(self, archive: Archive, member: Member) -> None:
        self.name, self.size, self.version = archive.file.name, member.size, archive.file.version
        self._archive, self._member = archive, member
        self._lock = threading.Lock()
        self._start: int | None = None
        self._seen = self._crc = 0

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            self._archive.file.pread_into(buffer, self._found() + offset)
            if self._seen == offset:
                self._crc, self._seen = zlib.crc32(buffer, self._crc), offset + len(buffer)
                self._judge()

    def expect(self, size: int, offset: int) -> None:
        self._archive.file.expect(size, self._found() + offset)

    def _found(self) -> int:
        if self._start is None:
            self._start = self._archive.find(self._member.name)
        return self._start

    def _judge(self) -> None:
        if self._seen == self.size and self._crc != self._member.crc and self._archive.checked():
            remedy = f"its record {self._member.name!r} is damaged (its CRC is wrong)"
            raise FormatError(f"{self.name} is damaged", remedy=remedy)


class Inflated(ByteSource):
    """A compressed member as a byte source."""

    def __init__(self, archive: Archive, member: str, size: int) -> None:
        self.name = f"{archive.file.name}, {member!r},"
        self.size = size
        self._archive, self._member = archive, member

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        if offset + len(buffer) <= HEAD:
            part = self._archive.head(self._member)[offset : offset + len(buffer)]
            buffer[: len(part)] = part
            done = len(part)
        while done < len(buffer):
            number, inside = divmod(offset + done, BLOCK)
            part = self._archive.block(self._member, number)[inside : inside + len(buffer) - done]
            if not part:
                raise FormatError(f"{self.name} ends too early", remedy="it is damaged")
            buffer[done : done + len(part)] = part
            done += len(part)


class RawReader(io.RawIOBase):
    """A byte source as a file object, for the standard library."""

    def __init__(self, file: ByteSource) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if count := max(0, min(len(buffer), self._file.size - self._at)):
            self._file.pread_into(memoryview(buffer)[:count], self._at)
        self._at += count
        return count


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def add_member(archive: zipfile.ZipFile, name: str, size: int, fill: Callable[[BinaryIO], object]) -> None:
    """Add a member of `size` bytes that `fill` writes; its time is fixed, so that equal content is equal bytes."""
    member = zipfile.ZipInfo(name, _EPOCH)
    member.file_size = size
    member.external_attr = 0o644 << 16
    assert archive.fp is not None
    header_end = archive.fp.tell() + 30 + len(name.encode("utf-8")) + 4
    count = -(header_end + (_ZIP64_EXTRA if size > _ZIP64_MOST else 0)) % ALIGNMENT
    member.extra = struct.pack("<HH", _PADDING_TAG, count) + b" " * count  # after which the data is aligned
    with archive.open(member, "w") as file:
        fill(file)  # type: ignore[arg-type]


def add_bytes(archive: zipfile.ZipFile, name: str, raw: bytes) -> None:
    """Add a small member."""
    add_member(archive, name, len(raw), lambda file: file.write(raw))
