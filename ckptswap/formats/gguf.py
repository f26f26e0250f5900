"""GGUF, llama.cpp's files: what is known of the model, then its tensors, plain or in quantised blocks.

We read the header ourselves, with suspicion and without loading a vocabulary; what is quantised is read as F32, by
the tables and the arithmetic of the library `gguf` (extra `formats`). Files of plain numbers need no library.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Tensor, Unread
from ckptswap.errors import FormatError
from ckptswap.formats.format import Format
from ckptswap.registry import library
from ckptswap.sources import FileRange
from ckptswap.storage import ByteSource, Folder

MAGIC = b"GGUF"
HEADER_MOST = 64 << 20
"""Bytes of all before the tensors: a vocabulary of 256,000 words and its merges takes 15 MB."""
NESTED_MOST = 4  # arrays in arrays
TENSORS_MOST, FACTS_MOST = 200_000, 100_000
WALKED_MOST = 2_000_000
"""Texts, and arrays in arrays, that are passed over one by one: a large vocabulary has 256,000, and twice as many
merges."""
DIMENSIONS_MOST = 4  # ggml's own bound
BLOCKS_AT_ONCE = 1 << 12
PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
"""ggml's numbers of the types that are plain, and our dtypes."""
SCALARS = dict(enumerate(["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d"]))
_TEXT, _ARRAY = 8, 9
PERMUTED = frozenset(["llama", "baichuan", "deci", "granite", "minicpm", "xverse"])
"""Architectures whose rows of queries and keys llama.cpp's conversion reorders, for its rotary embedding."""
ARCHITECTURE, ALIGNMENT = "general.architecture", "general.alignment"


@dataclass
class _Cursor:
    """Reads a file from its beginning; raises `FormatError` beyond its end and `HEADER_MOST`."""

    file: ByteSource
    at: int = 0
    start: int = 0
    window: bytes = b""
    walked: int = 0

    @property
    def left(self) -> int:
        return min(self.file.size, HEADER_MOST) - self.at

    def take(self, size: int) -> bytes:
        self.need(size)
        if self.at + size > self.start + len(self.window):
            self.start, self.window = self.at, self.file.pread(max(size, 1 << 16), self.at)
        begin = self.at - self.start
        self.at += size
        return self.window[begin : begin + size]

    def skip(self, size: int) -> None:
        self.need(size)
        self.at += size

    def need(self, size: int) -> None:
        if size > self.left:
            too_long = self.at + size <= self.file.size
            fault = f"it takes more than {HEADER_MOST:,} B" if too_long else "the file ends before it does"
            _refuse(self.file, f"its header is damaged: {fault}")

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        raw = self.take(self.number("<Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            _refuse(self.file, f"its header holds the name {raw[:20]!r}, which is not UTF-8")

    def count(self, least: int, what: str, most: int = HEADER_MOST) -> int:
        """How many of something follow, each of at least so many bytes."""
        count = self.number("<Q")
        if count * least > self.left:
            _refuse(self.file, f"it is said to hold {count:,} {what}, for which it is too short")
        if count > most:
            _refuse(self.file, f"it is said to hold {count:,} {what}; {most:,} is the most")
        return count

    def value(self, kind: int, depth: int = 0) -> Any:
        """A number or a text; an array is passed over, and is None."""
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            self._pass_array(depth)
            return None
        if not SCALARS.get(kind):
            _refuse(self.file, f"its header has a value of the unknown type {kind}")
        return self.number(SCALARS[kind])

    def _pass_array(self, depth: int) -> None:
        kind = self.number("<I")
        if depth == NESTED_MOST:
            _refuse(self.file, f"its header nests arrays more than {NESTED_MOST} deep")
        if form := SCALARS.get(kind):
            width = struct.calcsize(form)
            self.skip(self.count(width, "values") * width)
            return
        count = self.count(8, "values", WALKED_MOST - self.walked)
        self.walked += count
        for _ in range(count):
            if kind == _TEXT:  # most of a file's header: its vocabulary
                self.skip(self.number("<Q"))
            else:
                self.value(kind, depth + 1)


class _Info(NamedTuple):
    """A tensor as the header tells of it."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class _Block:
    """How a type is stored: so many values in so many bytes; `unpack` gives their floats."""

    name: str
    values: int
    nbytes: int
    unpack: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class BlockSource:
    """The float32 of a quantised tensor, unpacked a few thousand blocks at a time."""

    file: ByteSource
    start: int
    block: _Block

    def read_into(self, buffer: memoryview, offset: int) -> None:
        width = self.block.values * 4
        done = 0
        while done < len(buffer):
            first, skipped = divmod(offset + done, width)
            count = min(-(-(skipped + len(buffer) - done) // width), BLOCKS_AT_ONCE)
            values = self._values(first, count)[skipped : skipped + len(buffer) - done]
            buffer[done : done + len(values)] = values.data
            done += len(values)

    def _values(self, first: int, count: int) -> np.ndarray:
        raw = np.empty(count * self.block.nbytes, np.uint8)
        self.file.pread_into(raw.data, self.start + first * self.block.nbytes)
        with np.errstate(all="ignore"):  # scales may be anything
            floats = self.block.unpack(raw.reshape(count, self.block.nbytes))
        return np.ascontiguousarray(floats, "<f4").reshape(-1).view(np.uint8)


def open_gguf(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open a file lazily. Raises `FormatError` when it is damaged or hostile, `DependencyError` where it is
    quantised and the extra `formats` is not installed."""
    facts, infos, begin = _read_header(file)
    _refuse_twins(file, infos)
    blocks = _blocks({info.kind for info in infos} - set(PLAIN))
    tensors, unread, ends = [], {}, []
    for info in infos:
        if (block := blocks.get(info.kind)) is None and info.kind not in PLAIN:
            unread[info.name] = Unread(f"a tensor of ggml's type {info.kind}", info.shape, f"ggml {info.kind}")
            continue
        size = _stored(file, info, block)
        start = begin + info.offset
        ends.append((start, start + size, info.name))
        source = FileRange(file, start) if block is None else BlockSource(file, start, block)
        tensors.append(Tensor(info.name, info.shape, PLAIN.get(info.kind, "F32"), source))
    _refuse_overlap(file, ends)
    return Checkpoint(tensors, path=file.name, format=FORMAT.name, metadata=facts, sources=[file], unread=unread,
                      notes=_notes(facts, infos, blocks))  # fmt: skip


def _read_header(file: ByteSource) -> tuple[dict[str, str], list[_Info], int]:
    """What the file says of itself, of its tensors, and where these begin."""
    cursor = _Cursor(file)
    cursor.skip(len(MAGIC))
    version = cursor.number("<I")
    if version not in (2, 3):
        is_big = int.from_bytes(version.to_bytes(4, "little"), "big") in (1, 2, 3)
        _refuse(file, "it is big-endian" if is_big else f"it has the version {version}; 2 and 3 are known")
    tensors = cursor.count(24, "tensors", TENSORS_MOST)
    facts = {}
    for _ in range(cursor.count(13, "facts", FACTS_MOST)):
        key, kind = cursor.text(), cursor.number("<I")
        if (value := cursor.value(kind)) is not None:
            facts[key] = str(value)
    infos = [_info(cursor) for _ in range(tensors)]
    text = facts.get(ALIGNMENT, "32")
    if not text.isdecimal() or not 0 < (alignment := int(text)) <= 1 << 20:
        _refuse(file, f"its {ALIGNMENT} is {text[:20]!r}")
    return facts, infos, -(-cursor.at // alignment) * alignment


def _info(cursor: _Cursor) -> _Info:
    name, count = cursor.text(), cursor.number("<I")
    if count > DIMENSIONS_MOST:
        _refuse(cursor.file, f"tensor {name[:80]!r} has {count:,} dimensions; {DIMENSIONS_MOST} is the most")
    sizes = struct.unpack(f"<{count}Q", cursor.take(8 * count))
    shape = tuple(reversed(sizes))  # the innermost comes first
    if fault := dtypes.shape_fault(shape):
        _refuse(cursor.file, f"tensor {name[:80]!r} has {fault}")
    return _Info(name, shape, cursor.number("<I"), cursor.number("<Q"))


def _blocks(kinds: set[int]) -> dict[int, _Block]:
    """The types that are quantised and can be read, by their numbers."""
    if not kinds:
        return {}
    gguf = library("gguf")
    known = [gguf.GGMLQuantizationType(kind) for kind in kinds if kind in set(gguf.GGMLQuantizationType)]
    blocks = {int(kind): _block(kind, *gguf.GGML_QUANT_SIZES[kind]) for kind in known}
    return {kind: block for kind, block in blocks.items() if block is not None}


def _block(kind: Any, values: int, nbytes: int) -> _Block | None:
    """None for a type that the library knows and cannot unpack."""
    quants = library("gguf.quants")

    def unpack(raw: np.ndarray) -> np.ndarray:
        return quants.dequantize(raw, kind)

    try:
        unpack(np.zeros((1, nbytes), np.uint8))
    except NotImplementedError:
        return None
    return _Block(kind.name, values, nbytes, unpack)


def _stored(file: ByteSource, info: _Info, block: _Block | None) -> int:
    """The bytes that a tensor takes in the file."""
    count = prod(info.shape)
    if block is None:
        return count * dtypes.bits(PLAIN[info.kind]) // 8
    if not info.shape or info.shape[-1] % block.values:
        shape = list(info.shape)
        _refuse(file, f"tensor {info.name[:80]!r} is {block.name} {shape}, not in blocks of {block.values}")
    return count // block.values * block.nbytes


def _refuse_twins(file: ByteSource, infos: list[_Info]) -> None:
    twice = next((name for name, times in Counter(info.name for info in infos).items() if times > 1), None)
    if twice is not None:
        _refuse(file, f"it names {twice[:80]!r} twice")


def _refuse_overlap(file: ByteSource, ends: list[tuple[int, int, str]]) -> None:
    """Tensors that share bytes make a small file a large one."""
    reached = 0
    for start, end, name in sorted(ends):
        if end > file.size:
            _refuse(file, f"tensor {name[:80]!r} ends at byte {end:,}, but the file has {file.size:,}")
        if start < reached and end > start:
            _refuse(file, f"tensor {name[:80]!r} lies over another")
        reached = max(reached, end)


def _notes(facts: Mapping[str, str], infos: list[_Info], blocks: Mapping[int, _Block]) -> list[str]:
    counts = Counter(blocks[info.kind].name for info in infos if info.kind in blocks)
    notes = []
    if counts:
        named = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
        notes.append(f"{counts.total():,} tensors are quantised ({named}) and read as F32")
    if facts.get(ARCHITECTURE) in PERMUTED and any(".attn_q." in info.name for info in infos):
        notes.append("the rows of attn_q and attn_k are in llama.cpp's order, not in that of transformers "
                     "(--map-preset hf-gguf puts them back)")  # fmt: skip
    return notes


def _refuse(file: ByteSource, fault: str) -> NoReturn:
    raise FormatError(f"{file.name} is not a sound GGUF file", remedy=fault)


FORMAT = Format("gguf", open_gguf, what="a GGUF file, as llama.cpp reads them", suffixes=(".gguf",), promised=True,
                claims=lambda head, source: head.startswith(MAGIC))  # fmt: skip
