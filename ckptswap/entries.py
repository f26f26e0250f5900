"""What is known of a tensor without its values: name, place, shape, dtype; and of what cannot be read at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from weakref import WeakValueDictionary

import numpy as np

from ckptswap import dtypes
from ckptswap.errors import FormatError
from ckptswap.naming import blocks_of, classify, is_counter, split_name
from ckptswap.sources import CHUNK, TensorSource, chunks

NAME_MOST = 10_000
"""Letters of a tensor's name. Real ones have some hundred, and what looks at a name's parts takes their square."""

SIGN = "::"
"""Between a file and the key of one of the maps that it holds."""


def with_key(path: str, key: str | None) -> str:
    """The path of a file, or of the map under a key in it.

    >>> with_key("gan.pt", "g_ema"), with_key("gan.pt", None)
    ('gan.pt::g_ema', 'gan.pt')
    """
    return path if key is None else f"{path}{SIGN}{key}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a format finds of one tensor, before names are classified."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: TensorSource = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Unread:
    """What holds values of the model and is not read: what it is, and a tensor's shape and dtype.

    >>> str(Unread("a sparse tensor", (4, 4), "sparse"))
    'a sparse tensor'
    """

    what: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Entry(Tensor):
    """One tensor's name, place, shape and dtype (as safetensors spells it); not its values.

    >>> from ckptswap.checkpoint import Checkpoint
    >>> entry = Checkpoint.from_arrays({"c.weight": np.zeros((4, 3, 3, 3), np.float32)})["c.weight"]
    >>> entry.layer, entry.kind, entry.numel, entry.nbytes
    ('c', 'conv.weight', 108, 432)
    """

    layer: str
    kind: str
    block: str | None = None

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return (self.numel * dtypes.bits(self.dtype) + 7) // 8

    @property
    def without_shape(self) -> Entry:
        """The same with no kind that a shape would tell."""
        return replace(self, kind=f"other.{split_name(self.name)[1]}")

    def compatible(self, other: Entry) -> bool:
        """Whether the other may take its place: of its shape and dtype; what counts batches, of any number type.

        >>> from ckptswap.checkpoint import Checkpoint
        >>> name = "bn.num_batches_tracked"
        >>> old, new = (Checkpoint.from_arrays({name: np.array(9, dtype)}) for dtype in (np.float32, np.int64))
        >>> new[name].compatible(old[name])
        True
        """
        if self.shape != other.shape or self.dtype == other.dtype:
            return self.shape == other.shape
        return is_counter(self.name) and dtypes.is_number(self.dtype) and dtypes.is_number(other.dtype)

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """The tensor's bytes in order, as uint8 arrays of at most `size` bytes; the buffer is reused."""
        return chunks(self.source, self.nbytes, size)


class _Entries(dict[str, Entry]):
    """Entries by name, which may be referred to weakly."""


_LATEST: WeakValueDictionary[str, _Entries] = WeakValueDictionary()
"""What was placed last, as long as somebody has it. Two sides of a diff mostly have the same names and shapes:
then layers and kinds are told once, and both have the same texts."""


def placed(tensors: Iterable[Tensor], path: str, unread: Mapping[str, Unread] | None = None) -> dict[str, Entry]:
    """Tensors by name, with their layers and kinds, of which the shapes of all tell, also of those that are not
    read. Raises `FormatError`."""
    by_name = {tensor.name: tensor for tensor in tensors}
    longest = max(by_name, key=len, default="")
    if len(longest) > NAME_MOST:
        fault = f"{path} has a tensor whose name takes {len(longest):,} letters, beginning {longest[:40]!r}"
        raise FormatError(fault, remedy=f"{NAME_MOST:,} is the most")
    if odd := {name: held.shape for name, held in (unread or {}).items() if held.shape is not None}:
        return _placed(by_name, odd)
    latest = _LATEST.get("")
    entries = _placed(by_name, {}) if latest is None or not _are_alike(latest, by_name) else _like(latest, by_name)
    _LATEST[""] = entries
    return entries


def _placed(tensors: Mapping[str, Tensor], odd: Mapping[str, tuple[int, ...]]) -> _Entries:
    shapes = {**odd, **{name: tensor.shape for name, tensor in tensors.items()}}
    places = classify(shapes)
    blocks = blocks_of({name: layer for name, (layer, _) in places.items()}, shapes)
    return _Entries(
        (name, Entry(name, tensor.shape, tensor.dtype, tensor.source, *places[name], blocks[places[name][0]]))
        for name, tensor in tensors.items()
    )


def _are_alike(latest: _Entries, tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of the same names and shapes, in the same order, by which blocks go."""
    pairs = zip(latest.values(), tensors.values(), strict=False)
    return len(latest) == len(tensors) and all(a.name == b.name and a.shape == b.shape for a, b in pairs)


def _like(latest: _Entries, tensors: Mapping[str, Tensor]) -> _Entries:
    """These tensors with what is known of the latest."""
    pairs = zip(latest.values(), tensors.values(), strict=True)
    return _Entries(
        (a.name, Entry(a.name, a.shape, b.dtype, b.source, a.layer, a.kind, a.block)) for a, b in pairs
    )
