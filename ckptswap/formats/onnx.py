"""ONNX: the initialisers of a model's graph, and the tensors that its nodes hold (constants, branches), found by
walking protobuf fields, so that no value is loaded.

Values that lie in files of their own are read from the model's own folder, and from nowhere else.
Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Tensor, Unread
from ckptswap.errors import FormatError
from ckptswap.formats.format import Format
from ckptswap.formats.objects import is_plain_name
from ckptswap.sources import FileRange, MemorySource, TensorSource
from ckptswap.storage import ByteSource, Folder

FIELDS_MOST = 2_000_000
"""Fields that are walked: a tensor has some five, a node some thirty."""
NUMBERS_MOST = 4_000_000  # values that are written one by one, each of a length of its own
VARINT_MOST = 10  # bytes of a number
AT_ONCE = 1 << 16  # numbers that are unpacked at once
PARTS_MOST = 10_000
"""Stretches of one tensor's values, attributes of a node, tensors without names: each takes many times more memory
than it does bytes of a file."""
SMALL_MOST = 1 << 16  # bytes of a name
HEAD_MOST = 20  # bytes of a field's tag and its value or length
NEAR = 4096  # bytes that are read for the heads of neighbours
DTYPES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64",
          12: "U32", 13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3", 18: "F8_E4M3FNUZ", 19: "F8_E5M2",
          20: "F8_E5M2FNUZ", 24: "F8_E8M0"}  # fmt: skip
"""onnx's numbers of the dtypes, and ours; texts and what shares bytes have none."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL = {1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _VARINT, 6: _BYTES, 7: _BYTES, 8: _BYTES, 14: _BYTES,
          20: _BYTES, 25: _BYTES, 26: _BYTES}  # fmt: skip
_GRAPH, _FUNCTION, _NODE, _INITIALIZER, _SPARSE = 7, 25, 1, 5, 15
_OUTPUT, _OPERATOR, _ATTRIBUTE = 2, 4, 5  # of a node
_CALLED = 1  # the name of an attribute
_DIMENSIONS_MOST = 64
_NODE_OF_FUNCTION, _HELD_TENSOR, _HELD_GRAPH, _HELD_SPARSE = 7, (5, 10), (6, 11), (22, 23)
GRAPHS_DEEP = 32  # one in a node of another
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
_FLOATS, _DOUBLES, _NUMBERS = 4, 10, (5, 7, 11)


class _Field(NamedTuple):
    """A field of a message: its number and wire type; where its bytes begin and how many, or its value."""

    number: int
    wire: int
    start: int
    size: int
    value: int


@dataclass
class _Wire:
    """Walks a file's messages; raises `FormatError` where they are none."""

    file: ByteSource
    left: int = FIELDS_MOST
    near: tuple[int, bytes] = (0, b"")  # where the bytes that were read last begin, and these

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        while start < end:
            self.left -= 1
            if self.left < 0:
                raise self.refusal(f"it has more than {FIELDS_MOST:,} fields")
            head = self.head(start, min(HEAD_MOST, end - start))
            tag, at = self.varint(head, 0)
            number, wire = tag >> 3, tag & 7
            value, size = 0, {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
            if wire in (_VARINT, _BYTES):
                value, at = self.varint(head, at)
                size = value if wire == _BYTES else 0
            elif not size:
                raise self.refusal(f"it has a field of the unknown kind {wire}")
            if (start := start + at) + size > end:
                raise self.refusal("a field ends behind what holds it; it is perhaps cut short")
            yield _Field(number, wire, start, size, value)
            start += size

    def head(self, start: int, size: int) -> bytes:
        """A field's first bytes: of those read last, as its neighbours' are."""
        begin, raw = self.near
        if not begin <= start <= begin + len(raw) - size:
            begin, raw = self.near = start, self.file.pread(NEAR, start)
        return raw[start - begin : start - begin + size]

    def varint(self, raw: bytes, at: int) -> tuple[int, int]:
        if raw[at : at + 1] < b"\x80" and at < len(raw):  # most are a byte long
            return raw[at], at + 1
        value = 0
        for place, byte in enumerate(raw[at : at + 10]):
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
        raise self.refusal("a number in it does not end; it is perhaps cut short")

    def text(self, field: _Field) -> str:
        if field.size > SMALL_MOST:
            raise self.refusal(f"it has a name of {field.size:,} B")
        try:
            return self.file.pread(field.size, field.start).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refusal("it has a name that is not UTF-8") from None

    def numbers(self, field: _Field, most: int) -> np.ndarray:
        """Whole numbers, one or packed, of which there are `most`."""
        if field.wire == _VARINT:
            return np.array([field.value], np.uint64)
        if field.size > VARINT_MOST * most:
            raise self.refusal(f"it holds more than {most:,} numbers one by one: save them as raw data")
        raw = np.frombuffer(self.file.pread(field.size, field.start), np.uint8)
        ends = np.flatnonzero(raw < 0x80) + 1
        if len(raw) and (not len(ends) or ends[-1] < len(raw)):
            raise self.refusal("a number in it does not end; it is perhaps cut short")
        if len(ends) > most:
            raise self.refusal(f"it holds {len(ends):,} numbers one by one: save them as raw data")
        return self.unpacked(raw, ends)

    def unpacked(self, raw: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Numbers of which each ends there."""
        starts = np.concatenate([[0], ends[:-1]])
        widths = ends - starts
        if len(ends) and widths.max() > VARINT_MOST:
            raise self.refusal("a number in it does not end; it is perhaps cut short")
        values = np.zeros(len(ends), np.uint64)
        for begin in range(0, len(ends), AT_ONCE):
            part, first = widths[begin : begin + AT_ONCE], starts[begin : begin + AT_ONCE]
            for place in range(int(part.max())):
                at = np.flatnonzero(part > place)
                values[begin + at] |= (raw[first[at] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        return values

    def refusal(self, fault: str) -> FormatError:
        return FormatError(f"{self.file.name} is not a sound ONNX file", remedy=fault)


@dataclass
class _Initializer:
    """A tensor as its fields tell of it, not checked yet."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    kind: int = 0
    places: list[_Field] = field(default_factory=list)  # of plain bytes
    numbers: list[np.ndarray] = field(default_factory=list)
    external: dict[str, str] = field(default_factory=dict)
    is_external: bool = False

    @classmethod
    def of(cls, wire: _Wire, whole: _Field) -> "_Initializer":
        own = cls()
        for part in wire.fields(whole.start, whole.start + whole.size):
            if part.number == _DIMS:
                own.dims += wire.numbers(part, _DIMENSIONS_MOST).tolist()
            elif part.number == _TYPE:
                own.kind = part.value
            elif part.number == _NAME:
                own.name = wire.text(part)
            elif part.number in (_RAW, _FLOATS, _DOUBLES):
                own.places += [part] if part.size else []
            elif part.number in _NUMBERS:
                own.numbers.append(wire.numbers(part, NUMBERS_MOST))
            elif part.number == _LOCATION:
                own.is_external = part.value == 1
            elif part.number == _EXTERNAL:
                pair = {each.number: wire.text(each) for each in wire.fields(part.start, part.start + part.size)}
                own.external[pair.get(1, "")] = pair.get(2, "")
            if len(own.dims) > _DIMENSIONS_MOST or max(len(own.places), len(own.numbers)) > PARTS_MOST:
                raise wire.refusal(f"tensor {own.name[:80]!r} has too many dimensions, or values one by one")
        return own


@dataclass
class _Model:
    """Collects the tensors of a graph, and of what its nodes hold."""

    wire: _Wire
    folder: Folder | None
    stack: ExitStack
    tensors: dict[str, Tensor] = field(default_factory=dict)
    unread: dict[str, Unread] = field(default_factory=dict)
    opened: dict[str, ByteSource] = field(default_factory=dict)

    def graph(self, graph: _Field, within: tuple[str, ...] = ()) -> None:
        """What a graph holds; `within` are the nodes' attributes that hold the graph, the outermost first."""
        if len(within) > GRAPHS_DEEP:
            raise self.wire.refusal(f"its graphs are nested more than {GRAPHS_DEEP} deep")
        for part in self.inside(graph):
            if part.number == _INITIALIZER:
                self.add(_Initializer.of(self.wire, part), within)
            elif part.number == _SPARSE:
                self.leave_sparse()
            elif part.number == _NODE:
                self.node(part, within)

    def function(self, function: _Field) -> None:
        for part in self.inside(function):
            if part.number == _NODE_OF_FUNCTION and part.wire == _BYTES:
                self.node(part, ("function",))

    def node(self, node: _Field, within: tuple[str, ...]) -> None:
        """A node's tensors have its first output's name: a constant is what others read by that."""
        parts = self.parts(node, (_OUTPUT, _OPERATOR, _ATTRIBUTE))
        output = next((self.wire.text(part) for part in parts if part.number == _OUTPUT), "")
        is_constant = any(part.number == _OPERATOR and self.wire.text(part) == "Constant" for part in parts)
        for part in parts:
            if part.number == _ATTRIBUTE:
                self.attribute(part, output, is_constant, within)

    def attribute(self, attribute: _Field, output: str, is_constant: bool, within: tuple[str, ...]) -> None:
        parts = self.parts(attribute, (_CALLED, *_HELD_TENSOR, *_HELD_GRAPH, *_HELD_SPARSE))
        called = next((self.wire.text(part) for part in parts if part.number == _CALLED), "")
        held = [part for part in parts if part.number in _HELD_TENSOR]
        for at, part in enumerate(held):
            found = _Initializer.of(self.wire, part)
            place = f".{at}" if len(held) > 1 else ""
            found.name = output if is_constant and not place else f"{output}.{called}{place}"
            self.add(found, within)
        for part in parts:
            if part.number in _HELD_GRAPH:
                self.graph(part, (*within, f"{output}.{called}"))
            elif part.number in _HELD_SPARSE:
                self.leave_sparse()

    def inside(self, whole: _Field) -> Iterator[_Field]:
        return self.wire.fields(whole.start, whole.start + whole.size)

    def parts(self, whole: _Field, wanted: Sequence[int]) -> list[_Field]:
        """The fields of these numbers that hold something."""
        found = (part for part in self.inside(whole) if part.wire == _BYTES and part.number in wanted)
        parts = list(islice(found, PARTS_MOST + 1))
        if len(parts) > PARTS_MOST:
            raise self.wire.refusal(f"one of its nodes has more than {PARTS_MOST:,} parts")
        return parts

    def leave_sparse(self) -> None:
        if len(self.unread) == PARTS_MOST:
            raise self.wire.refusal(f"it has more than {PARTS_MOST:,} sparse tensors")
        self.unread[f"<sparse {len(self.unread)}>"] = Unread("a sparse tensor")

    def add(self, found: _Initializer, within: tuple[str, ...]) -> None:
        """Two branches may each have a tensor of one name: the second has that of its branch before it."""
        if within and (found.name in self.tensors or found.name in self.unread):
            found.name = ".".join([*within, found.name])
        name, shape = found.name, tuple(found.dims)
        if name in self.tensors or name in self.unread:
            raise self.wire.refusal(f"it names {name[:80]!r} twice")
        if fault := dtypes.shape_fault(shape):
            raise self.wire.refusal(f"tensor {name[:80]!r} has {fault}")
        if (spelt := DTYPES.get(found.kind)) is None:
            self.unread[name] = Unread(f"a tensor of onnx's type {found.kind}", shape, f"onnx {found.kind}")
            return
        self.tensors[name] = Tensor(name, shape, spelt, self.source(found, spelt, prod(shape)))

    def source(self, found: _Initializer, spelt: str, count: int) -> TensorSource:
        size = count * dtypes.bits(spelt) // 8
        if found.is_external:
            return self.beside(found, size)
        if len(found.places) == 1 and not found.numbers:
            start, there = found.places[0].start, found.places[0].size
            source: TensorSource = FileRange(self.wire.file, start)
        else:
            raw = b"".join(self.wire.file.pread(place.size, place.start) for place in found.places)
            width = dtypes.bits(spelt) // 8
            raw += b"".join(part.astype(f"u{min(width, 8)}").tobytes() for part in found.numbers)
            source, there = MemorySource(memoryview(raw)), len(raw)
        if there != size:
            fault = f"tensor {found.name[:80]!r} is {spelt} {found.dims} but takes {there:,} B"
            raise self.wire.refusal(fault)
        return source

    def beside(self, found: _Initializer, size: int) -> FileRange:
        """Values in another file of the model's own folder."""
        name = found.external.get("location", "").removeprefix("./")
        numbers = [
            found.external.get(key, "") or default for key, default in (("offset", "0"), ("length", str(size)))
        ]
        if name not in self.opened:
            if not is_plain_name(name) or self.folder is None or not self.folder.holds(name):
                fault = f"tensor {found.name[:80]!r} lies in {name[:80]!r}, which is not a file beside it"
                raise self.wire.refusal(fault)
            self.opened[name] = self.stack.enter_context(closing(self.folder.open(name)))
        is_sound = all(text.isdecimal() and len(text) < 20 for text in numbers)
        if not is_sound or int(numbers[1]) != size or int(numbers[0]) + size > self.opened[name].size:
            raise self.wire.refusal(f"tensor {found.name[:80]!r} is said to lie where {name!r} has no room for it")
        return FileRange(self.opened[name], int(numbers[0]))


def open_onnx(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open a file lazily; raises `FormatError` when it is damaged or hostile."""
    wire = _Wire(file)
    parts = [part for part in wire.fields(0, file.size) if part.wire == _BYTES]
    graphs = [part for part in parts if part.number == _GRAPH]
    if len(graphs) != 1:
        raise wire.refusal(f"it has {len(graphs) or 'no'} graphs")
    with ExitStack() as stack:
        model = _Model(wire, folder, stack)
        model.graph(graphs[0])
        for function in (part for part in parts if part.number == _FUNCTION):
            model.function(function)
        checkpoint = Checkpoint(model.tensors.values(), path=file.name, format=FORMAT.name,
                                sources=[file, *model.opened.values()], unread=model.unread)  # fmt: skip
        stack.pop_all()
        return checkpoint


def _claims(head: bytes, source: ByteSource) -> bool:
    """A file has no magic number: it is a model if its fields are those of one, to the last byte."""
    if head[:1] != b"\x08":  # the version, which every writer puts first
        return False
    try:
        parts: list[Any] = list(_Wire(source, 1000).fields(0, source.size))
    except FormatError:
        return False
    return any(part.number == _GRAPH for part in parts) and all(
        _MODEL.get(part.number) == part.wire for part in parts
    )


FORMAT = Format("onnx", open_onnx, what="an ONNX file", suffixes=(".onnx",), promised=True, claims=_claims)
