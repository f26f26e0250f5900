"""Archives of `torch.jit.save`: a module's state dict, of its pickle and of what its code declares; nothing runs.

Of the code only the lines are looked at that name a class's parameters and buffers. Tensors in other attributes,
and those that the code calls `CONSTANTS.c0` … (all of them in a frozen module), have keys of their own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Unread
from ckptswap.errors import FormatError
from ckptswap.formats.archive import ZIP_MAGIC, Archive, ZipChecksums
from ckptswap.formats.format import Format
from ckptswap.formats.inert import Build, Inert, inert, shown
from ckptswap.formats.modules import BUFFERS, MODULES, PARAMETERS
from ckptswap.formats.opcodes import NAME_MOST
from ckptswap.formats.state_dict import DEPTH_MOST, parts
from ckptswap.formats.torch_pickle import NAMES, Locate, View
from ckptswap.formats.torch_tensors import checkpoint_of
from ckptswap.formats.torch_zip import metadata_of, prefix_of, read_part, storages_of
from ckptswap.storage import ByteSource, Folder

SUFFIXES = (".jit", ".ptl", ".torchscript")
STATE_DICT, ATTRIBUTES, CONSTANTS = "state_dict", "attributes", "CONSTANTS"
"""The keys of a module's tensors, of those that it keeps outside its state dict, and of those of its code."""
CODE_MOST = 64 << 20  # bytes of all code: that of large detectors takes 2 MB
TAIL = 1 << 16  # bytes at the end of a file: its directory, in which the constants come near the last
_OWN, _CUSTOM = "__torch__.", "__torch__.torch.classes."
_CLASS = re.compile(r"^class (\w+)\((\w*)\):\n((?:[ \t]+[^\n]*\n|\n)*)", re.MULTILINE)
_LISTED = {part: re.compile(rf"^  __{part}__ = \[([^\n]*)\]$", re.MULTILINE) for part in ("parameters", "buffers")}
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"')


class _Class(NamedTuple):
    """What the code says of a class: whether it is a module that keeps its attributes as they are, which of these
    are parameters and which buffers (None before torch 1.6: all other tensors)."""

    is_module: bool
    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] | None = None

    def part_of(self, name: str, value: Any) -> str | None:
        """To which part of a state dict an attribute belongs; None where to none."""
        if name in self.parameters:
            return PARAMETERS
        is_buffer = isinstance(value, View | Unread) if self.buffers is None else name in self.buffers
        return BUFFERS if is_buffer else None


class _Names(dict[str, Build]):
    """The globals of such a pickle: what `torch.save` writes, and the archive's own classes."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (str(name).startswith(_OWN) and len(str(name)) <= NAME_MOST)

    def __missing__(self, name: str) -> Build:
        return inert(name)


_GIVEN = [f"build_{of}list" for of in ("int", "bool", "double", "tensor")] + ["restore_type_tag"]
"""What marks a list's or a map's type, and gives it as it is."""
_NAMES = _Names({**NAMES, **{f"torch.jit._pickle.{name}": lambda arguments: arguments[0] for name in _GIVEN}})


def open_torchscript(file: ByteSource, folder: Folder | None = None, key: str | None = None) -> Checkpoint:
    """Open lazily; `key` is that of one of several maps. Raises `FormatError` for what is damaged or hostile."""
    archive = Archive(file)
    inside = checkpoint_of(*read_script(archive), file, FORMAT.name, key, metadata=metadata_of(archive),
                           checksums=[ZipChecksums([file])])  # fmt: skip
    return inside.holding((), beside=("its code", *inside.beside))


def read_script(archive: Archive) -> tuple[Any, Locate]:
    """The module that an archive holds, inert, or a map of it and of what lies outside its state dict; and where
    storages lie."""
    code = _Code.of(archive)
    root, constants = (read_part(archive, part, _NAMES) for part in ("data", "constants"))
    if not code.is_module(root):
        raise _refusal(archive, f"its data.pkl holds {shown(root)}, which is not a module")
    state, others = _split(root, code)
    held = {f"c{at}": value for at, value in enumerate(parts(constants)) if _has_values(value, {})}
    beside = {key: value for key, value in ((ATTRIBUTES, others), (CONSTANTS, held)) if value}
    return {STATE_DICT: state, **beside} if beside else state, storages_of(archive)


@dataclass
class _Code:
    """The code of an archive, as far as it tells what its classes are."""

    archive: Archive
    folder: str
    known: dict[str, Mapping[str, _Class]] = field(default_factory=dict)

    @classmethod
    def of(cls, archive: Archive) -> "_Code":
        """Raises `FormatError` where more is packed than code, which is small."""
        folder = f"{prefix_of(archive)}/code/"
        packed = [member for member in archive.members.values() if not member.is_stored]
        for member in packed:
            if not member.name.startswith(folder):
                archive.stored(member.name)
        if sum(member.size for member in packed) > CODE_MOST:
            raise _refusal(archive, f"its code takes more than {CODE_MOST:,} B")
        return cls(archive, folder)

    def declared(self, name: str) -> _Class:
        """What it says of a class. Raises `FormatError` where it says nothing."""
        module, _, own = name.rpartition(".")
        if module not in self.known:
            self.known[module] = self._read(f"{self.folder}{module.replace('.', '/')}.py")
        if own not in self.known[module]:
            raise _refusal(self.archive, f"its code does not declare {shown(name, most=200)}")
        return self.known[module][own]

    def is_module(self, value: Any) -> bool:
        """Whether it is a module in a module. Raises `FormatError`, as `declared` does."""
        if not isinstance(value, Inert) or not value.name.startswith(_OWN) or value.name.startswith(_CUSTOM):
            return False
        return isinstance(value.state, dict) and self.declared(value.name).is_module

    def _read(self, name: str) -> dict[str, _Class]:
        if name not in self.archive:
            return {}
        file, start = self.archive.place(name)
        text = file.pread(min(self.archive.members[name].size, CODE_MOST), start).decode("utf-8", "replace")
        return {own: _class(base, body) for own, base, body in _CLASS.findall(text)}


def _class(base: str, body: str) -> _Class:
    if base != "Module" or "  def __setstate__(" in body:
        return _Class(is_module=False)
    parameters, buffers = (match and frozenset(_QUOTED.findall(match[1]))
                           for match in (pattern.search(body) for pattern in _LISTED.values()))  # fmt: skip
    return _Class(True, parameters or frozenset(), buffers)


def _split(root: Inert, code: _Code) -> tuple[Inert, Inert | None]:
    """A module as two, of the form in which torch pickles them: with the tensors of its state dict, and with all
    others, where there are any."""
    made, waiting, known = {id(root): _pair(root)}, [root], dict[int, bool]()
    while waiting:
        module = waiting.pop()
        declared = code.declared(module.name)
        saved, others = made[id(module)]
        for name, value in module.state.items():
            if code.is_module(value):
                if id(value) not in made:
                    made[id(value)] = _pair(value)
                    waiting.append(value)
                saved.state[MODULES][name], others.state[MODULES][name] = made[id(value)]
            elif part := declared.part_of(name, value):
                saved.state[part][name] = value
            elif _has_values(value, known):
                is_packed = isinstance(value, Inert) and value.name.startswith(_OWN)
                (saved if is_packed else others).state[BUFFERS][name] = value.state if is_packed else value
    saved, others = made[id(root)]
    return saved, others if any(pair[1].state[BUFFERS] for pair in made.values()) else None


def _pair(module: Inert) -> tuple[Inert, Inert]:
    def empty() -> Inert:
        return Inert(module.name, {PARAMETERS: {}, BUFFERS: {}, MODULES: {}})

    return empty(), empty()


def _has_values(value: Any, known: dict[int, bool], depth: int = 0) -> bool:
    """Whether a tensor with elements lies in it, or it is too deep to tell; `known` keeps what containers hold."""
    if isinstance(value, View | Unread):
        return 0 not in (value.shape or ())
    if (inside := parts(value)) and id(value) not in known:
        known[id(value)] = depth == DEPTH_MOST  # meanwhile: it may hold itself
        known[id(value)] |= any(_has_values(part, known, depth + 1) for part in inside)
    return known.get(id(value), False)


def _refusal(archive: Archive, fault: str) -> FormatError:
    return FormatError(f"{archive.file.name} is not a sound TorchScript archive", remedy=fault)


def _claims(head: bytes, source: ByteSource) -> bool:
    """A zip in whose directory the tensors of code come near the end."""
    start = max(0, source.size - TAIL)
    return head.startswith(ZIP_MAGIC) and b"/constants.pkl" in source.pread(source.size - start, start)


FORMAT = Format("torchscript", open_torchscript, what="a TorchScript archive", suffixes=SUFFIXES, claims=_claims,
                open_at=open_torchscript)  # fmt: skip
