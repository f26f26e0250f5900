"""A checkpoint in memory: a lazy ordered map from names to entries; values are read only when asked for.

A variant is a checkpoint too: `overlay` lays some entries of a donor over a recipient without reading a byte.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import KW_ONLY, InitVar, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Protocol

import numpy as np

from ckptswap import dtypes
from ckptswap.entries import SIGN, Entry, Tensor, Unread, placed
from ckptswap.errors import FormatError, MismatchError, listing, near
from ckptswap.home import Home
from ckptswap.naming import quantised
from ckptswap.sources import (
    CHUNK,
    BlendSource,
    CastSource,
    FileRange,
    MemorySource,
    array_of,
    chunks,
    page_aligned,
)
from ckptswap.storage import ByteSource, LocalFile
from ckptswap.ties import Ties, ties_of
from ckptswap.watching import Watch, unwatched


def stale_note(stale: Sequence[str]) -> str:
    """What lies beside the tensors and belongs to their very values, as a sentence about the checkpoint.

    >>> stale_note(["optimizer"])
    'it also carries optimizer, which belongs to these tensors'
    """
    return f"it also carries {listing(stale)}, which belongs to these tensors"


class Damage(NamedTuple):
    """A record whose checksum is wrong: the file that it is in (None: the whole checkpoint), and a sentence."""

    file: str | None
    fault: str


class Checksums(Protocol):
    """What a format knows of its records' checksums: only they tell a flipped bit."""

    def nbytes(self) -> int:
        """How many bytes have a checksum; raises `FormatError` where that cannot be told."""

    def damage(self, watch: Watch) -> Iterator[Damage]:
        """What is damaged; reads all that has a checksum, and tells `watch` of it. Raises `FormatError`."""


@dataclass(eq=False, repr=False)
class Checkpoint(Mapping[str, Entry]):
    """A lazy ordered map name → `Entry`, in the order of the file.

    `path` and `format` say where it came from, `metadata` what the file says of itself, `notes` what a reader
    should know (a prefix, shared storage). `unread` is what holds values of the model and is not a tensor that can
    be read, by name, `beside` the keys of what a file holds besides the tensors, `stale` those of them
    that belong to these very tensors (an optimizer's state). `key` is that of the map, where a file holds several
    and it was asked for. `sources` are the files whose bytes it stands for,
    `checksums` what is known of their soundness, `home` the folder that it is. `renames` are the names that are
    not the file's own (old → new), `ties` the names that are known to be one tensor. `module` is the `nn.Module`
    in memory whose tensors these are. Use it as a context manager, or call `close`.

    >>> a = Checkpoint.from_arrays({"w": np.arange(3.0)})
    >>> list(a), a["w"].dtype, a.read("w").tolist()
    (['w'], 'F64', [0.0, 1.0, 2.0])
    """

    tensors: InitVar[Iterable[Tensor]]
    _: KW_ONLY
    path: str
    format: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sources: Sequence[ByteSource] = ()
    checksums: Sequence[Checksums] = ()
    home: Home | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, Unread] = field(default_factory=dict)
    ties: Ties = field(default_factory=Ties)
    beside: Sequence[str] = ()
    stale: Sequence[str] = ()
    key: str | None = None
    module: object = None

    def __post_init__(self, tensors: Iterable[Tensor]) -> None:
        self._entries = placed(tensors, self.path, self.unread)
        for name in ("notes", "sources", "checksums", "beside", "stale"):
            setattr(self, name, tuple(getattr(self, name)))
        if parts := quantised(self._entries):
            self.ties = self.ties.joined(Ties.of_parts(parts))

    # A mapping's own equality would call checkpoints equal whose values were never compared.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r} ({self.format}, {len(self)} tensors)>"

    def close(self) -> None:
        """Let go of the files. Values cannot be read afterwards."""
        for source in self.sources:
            source.close()

    @property
    def place(self) -> str:
        """Its path without the key of one of a file's maps.

        >>> Checkpoint([], path="gan.pt::g_ema", format="torch", key="g_ema").place
        'gan.pt'
        """
        return self.path if self.key is None else self.path.removesuffix(f"{SIGN}{self.key}")

    @property
    def every_name(self) -> list[str]:
        """The names of its tensors, and of what is not read."""
        return [*self, *self.unread]

    @property
    def files(self) -> tuple[Path, ...]:
        """Where its files lie, as far as they lie on this machine."""
        return tuple(source.path for source in self.sources if source.path is not None)

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data, headers not counted."""
        return sum(entry.nbytes for entry in self.values())

    def tied(self, ties: Ties) -> Checkpoint:
        """The same checkpoint, in which these of its names are known to be one tensor too."""
        known = ties.among(self).joined(self.ties)
        return self if known == self.ties else self._but(ties=known)

    def also_named(self, names: Mapping[str, str]) -> Checkpoint:
        """The same checkpoint, whose tensors have these names too, or instead (new → old).

        >>> list(Checkpoint.from_arrays({"w": np.zeros(1)}).also_named({"v": "w"}))
        ['w', 'v']
        """
        if not names:
            return self
        new = [replace(self[old], name=name) for name, old in names.items()]
        entries = placed([*self.values(), *new], self.path, self.unread)
        return self._but(_entries={**self._entries, **{name: entries[name] for name in names}})

    def holding(self, tensors: Iterable[Tensor], *, without: Container[str] = (), **facts: Any) -> Checkpoint:
        """The same checkpoint with these tensors in the place of its own, or beside them, and without what is
        named; `facts` are the attributes that differ then.

        >>> a = Checkpoint.from_arrays({"w": np.zeros(1), "v": np.zeros(1)})
        >>> list(a.holding([Tensor("x", (1,), "F64", a["w"].source)], without=["w"]))
        ['v', 'x']
        """
        kept = {name: entry for name, entry in self.items() if name not in without}
        every = {**kept, **{tensor.name: tensor for tensor in tensors}}
        entries = placed(every.values(), self.path, facts.get("unread", self.unread))
        return self._but(_entries=entries, ties=self.ties.among(kept), **facts)

    def under(self, names: Mapping[str, str], renames: Mapping[str, str] | None = None) -> Checkpoint:
        """What of it is named, under new names (old → new), beside what is not read; `renames` are all that differ
        from the file's then.

        >>> list(Checkpoint.from_arrays({"w": np.zeros(1), "v": np.zeros(1)}).under({"w": "x"}))
        ['x']
        """
        unread = {names.get(name, name): held for name, held in self.unread.items()}
        tensors = [replace(self[old], name=new) for old, new in names.items() if old in self]
        known = self.ties.among(names).renamed(names)
        return self._but(_entries=placed(tensors, self.path, unread), ties=known, unread=unread,
                         renames=dict(self.renames if renames is None else renames))  # fmt: skip

    def _but(self, **changes: Any) -> Checkpoint:
        """The same with some attributes changed; closing it closes this one."""
        other = copy.copy(self)
        vars(other).pop("unread_entries", None)  # made of what may change
        vars(other).update(changes)
        return other

    def entry(self, name: str) -> Entry:
        """The entry of that name; raises `MismatchError` with near names when there is none."""
        if name not in self:
            raise MismatchError(f"{self.path} has no tensor {name!r}", remedy=near(name, self) or "see `show`")
        return self[name]

    @cached_property
    def unread_entries(self) -> dict[str, Entry]:
        """Entries without values in place of what is not read, for a selection to go by; of what is no tensor the
        shape is empty.

        >>> odd = Unread("a sparse tensor", (4, 4), "sparse")
        >>> sparse = Checkpoint([], path="a.pt", format="torch", unread={"adjacency": odd})
        >>> [(entry.shape, entry.dtype) for entry in sparse.unread_entries.values()]
        [((4, 4), 'sparse')]
        """
        if not self.unread:
            return {}
        nothing = MemorySource(memoryview(b""))
        odd = [Tensor(name, held.shape or (), held.dtype or "", nothing) for name, held in self.unread.items()]
        entries = placed([*self.values(), *odd], self.path)
        return {name: entries[name] if held.shape is not None else entries[name].without_shape
                for name, held in self.unread.items()}  # fmt: skip

    @property
    def unread_note(self) -> str:
        """What holds values and is not read, as a sentence; empty where all is.

        >>> Checkpoint([], path="a.pt", format="torch", unread={"anchors": Unread("a numpy array")}).unread_note
        'a.pt: 1 entry holds values that are not read: anchors (a numpy array)'
        """
        if not self.unread:
            return ""
        named = listing([f"{name[:80]} ({what})" for name, what in self.unread.items()], most=5)
        are = "1 entry holds" if len(self.unread) == 1 else f"{len(self.unread):,} entries hold"
        return f"{self.path}: {are} values that are not read: {named}"

    def read(self, name: str) -> np.ndarray:
        """One tensor's values: a fresh, writable, C-contiguous array (packed dtypes: their raw bytes)."""
        entry = self.entry(name)
        raw = page_aligned(entry.nbytes)
        if entry.nbytes:
            entry.source.read_into(raw.data, 0)
        if dtypes.is_packed(entry.dtype):
            return raw
        return raw.view(dtypes.to_numpy(entry.dtype)).reshape(entry.shape)

    def sha256(self) -> str:
        """The hash by which results name this checkpoint.

        One file: that file's SHA-256, as `sha256sum` prints it. A folder: the SHA-256 of the lines that
        `sha256sum` would print for its files. No file: names, dtypes, shapes and bytes of the tensors. A file on
        another machine that says which version it is, is not read for it: its SHA-256 where that is known there,
        else its name and version. Raises `FileError` when a file is gone, or no longer the one that was opened.
        """
        if len(self.sources) == 1 and (version := self.sources[0].version):
            return version.sha256 or (f"{self.sources[0].name} {version.text}" if version.text else self.hashed())
        return self.hashed()

    def hashed(self, new: Callable[[], Any] = hashlib.sha256, stop: Event | None = None) -> str:
        """The same by another algorithm, of hashlib or xxhash; setting `stop` ends it early, with a digest that
        means nothing."""
        digest = new()
        if len(self.sources) == 1:
            _feed(digest, self.sources[0], stop)
        elif self.sources:
            for source in sorted(self.sources, key=lambda source: source.name):
                digest.update(os.fsencode(f"{_hash_of(source, new, stop)}  {os.path.basename(source.name)}\n"))
        else:
            for entry in self.values():
                digest.update(repr((entry.name, entry.dtype, entry.shape)).encode("utf-8", "surrogatepass"))
                for chunk in entry.chunks():
                    digest.update(chunk.data)
        self.check_files()
        return digest.hexdigest()

    def damage(self, watch: Watch = unwatched) -> Iterator[Damage]:
        """The records whose checksums are wrong; all that have one are read."""
        try:
            for checksums in self.checksums:
                yield from checksums.damage(watch)
        except FormatError as error:
            yield Damage(None, str(error))

    def check_files(self) -> None:
        """Raises `FileError` when a file was replaced or written to: its path then leads to other bytes."""
        for source in self.sources:
            source.check_unchanged()

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None, path: str = "<memory>"
    ) -> Checkpoint:
        """A checkpoint of numpy arrays or torch tensors in memory, such as a `state_dict`, which are not copied.

        Raises `FormatError` for a dtype that has no spelling, `UsageError` for what is not an array under a name.
        """
        tensors = [_tensor(name, array) for name, array in arrays.items()]
        ties = ties_of({name: array for name, array in arrays.items() if hasattr(array, "detach")})
        return cls(tensors, path=path, format="memory", metadata=metadata or {}, ties=ties)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; raises `FileError` when they cannot be read."""
    with closing(LocalFile(path)) as source:
        _feed(digest := hashlib.sha256(), source)
        return digest.hexdigest()


def _hash_of(source: ByteSource, new: Callable[[], Any], stop: Event | None) -> str:
    """One of several files' hash, or what its server says in place of it."""
    if source.version and (told := source.version.sha256 or source.version.text):
        return told
    _feed(digest := new(), source, stop)
    return digest.hexdigest()


def _feed(digest: Any, source: ByteSource, stop: Event | None = None) -> None:
    for part in chunks(FileRange(source, 0), source.size, CHUNK):
        if stop and stop.is_set():
            return
        digest.update(part.data)


def refuse_damaged(*checkpoints: Checkpoint, watch: Watch = unwatched) -> None:
    """Raises `FormatError` where a record has not its checksum; `watch` is told of `checked_bytes` in all."""
    for checkpoint in checkpoints:
        for file, fault in checkpoint.damage(watch):
            raise FormatError(f"{file or checkpoint.path} is damaged", remedy=fault)


def checked_bytes(*checkpoints: Checkpoint) -> int:
    """How many bytes have a checksum, in what can be read.

    >>> checked_bytes(Checkpoint.from_arrays({"w": np.zeros(3)}))
    0
    """
    total = 0
    for checksums in (known for checkpoint in checkpoints for known in checkpoint.checksums):
        with suppress(FormatError):
            total += checksums.nbytes()
    return total


def overlay(recipient: Checkpoint, donor: Checkpoint, names: Iterable[str], *, alpha: float = 1.0) -> Checkpoint:
    """The recipient with the named entries taken from the donor: a variant, and a checkpoint like any other.

    `alpha` 1 takes the donor's bits, 0 keeps the recipient's, between them floats are interpolated and
    everything else stays the recipient's. Raises `MismatchError` where a name is missing, or where shape or
    dtype differ.

    >>> a = Checkpoint.from_arrays({"w": np.zeros(2), "b": np.zeros(2)})
    >>> b = Checkpoint.from_arrays({"w": np.ones(2), "b": np.ones(2)})
    >>> variant = overlay(a, b, ["w"])
    >>> variant.read("w").tolist(), variant.read("b").tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """
    taken = {name: graft(recipient.entry(name), donor.entry(name), alpha) for name in names}
    nowhere = dict.fromkeys(("sources", "checksums", "beside", "stale"), ())
    return recipient._but(_entries={**recipient._entries, **taken}, ties=recipient.ties.unbroken(taken),
                          format="overlay", home=None, renames={}, **nowhere)  # fmt: skip


def graft(ours: Entry, theirs: Entry, alpha: float = 1.0) -> Entry:
    """The recipient's entry with the donor's values, as `overlay` takes them. Raises `MismatchError`."""
    if not ours.compatible(theirs):
        raise MismatchError(f"{ours.name!r} is {theirs.dtype} {list(theirs.shape)} in the donor but "
                            f"{ours.dtype} {list(ours.shape)} in the recipient",
                            remedy="select tensors that fit, or skip the others")  # fmt: skip
    given = theirs.source if ours.dtype == theirs.dtype else CastSource(theirs.source, theirs.dtype, ours.dtype)
    if alpha == 1:
        return replace(ours, source=given)
    if alpha == 0 or not dtypes.is_float(ours.dtype):
        return ours
    return replace(ours, source=BlendSource(ours.source, given, ours.dtype, alpha))


def _tensor(name: str, values: Any) -> Tensor:
    array = array_of(name, values)
    if (dtype := dtypes.from_numpy(array.dtype)) is None:
        raise FormatError(f"tensor {name!r} has the dtype {array.dtype}", remedy="convert it to a number type")
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return Tensor(name, array.shape, dtype, MemorySource(plain.reshape(-1).view(np.uint8).data))
