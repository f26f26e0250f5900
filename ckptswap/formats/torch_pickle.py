"""What `torch.save` pickles, read without torch: tensors as views of storages, and where a state dict hides.

A pickle that asks for anything but tensors, plain containers and a few harmless records is refused by name. The
tensors are looked for where training scripts put them (`state_dict`, `model`, …, Lightning's wrapper).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ckptswap import dtypes
from ckptswap.checkpoint import Tensor
from ckptswap.errors import FormatError, listing
from ckptswap.formats.local import ByteSource
from ckptswap.formats.pickles import Build, Global, Inert, inert, plain_dict
from ckptswap.formats.strided import strided

PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which training scripts keep the model's tensors, the likeliest first."""
DTYPES: Mapping[str, str] = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
"""torch's names of the dtypes, without `torch.`, and ours."""
STORAGES: Mapping[str, str] = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16",
    "Long": "I64", "Int": "I32", "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL",
    "ComplexFloat": "C64", "ComplexDouble": "C128",
    "QInt8": "I8", "QUInt8": "U8", "QInt32": "I32", "QUInt4x2": "U8", "QUInt2x4": "U8",
}  # fmt: skip
"""torch's names of the storages' element types, without `Storage`, and our dtypes."""
_ODD_DTYPES = "complex32 bits8 bits16 float4_e2m1fn_x2 qint8 quint8 qint32 quint4x2 quint2x4".split()  # noqa: SIM905
_STALE = re.compile(r"optim|(^|_)ema(_|$)|momentum|averag|shadow", re.IGNORECASE)
_HARMLESS = (  # noqa: SIM905
    "_codecs.encode argparse.Namespace builtins.bytearray builtins.complex builtins.frozenset builtins.range "
    "builtins.slice datetime.date datetime.datetime datetime.timedelta datetime.timezone "
    "numpy.dtype numpy.ndarray numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar "
    "numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar "
    "pathlib.Path pathlib.PosixPath pathlib.PurePath pathlib.PurePosixPath pathlib.PureWindowsPath "
    "pathlib.WindowsPath torch.Tensor torch.device torch.nn.parameter.Buffer torch.nn.parameter.Parameter "
    "torch.serialization._get_layout torch.per_tensor_affine torch.per_tensor_symmetric "
    "torch.per_channel_affine torch.per_channel_symmetric torch.per_channel_affine_float_qparams"
).split()
_MAPS = (  # noqa: SIM905
    "builtins.dict collections.Counter collections.OrderedDict collections.defaultdict "
    "lightning.fabric.utilities.data.AttributeDict lightning_fabric.utilities.data.AttributeDict "
    "pytorch_lightning.utilities.parsing.AttributeDict"
).split()


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A run of bytes that tensors are views of. `dtype` None: untyped, `numel` counts bytes. `start` in bytes."""

    key: str
    dtype: str | None
    numel: int
    start: int = 0

    @property
    def nbytes(self) -> int:
        return self.numel * (dtypes.bits(self.dtype) // 8 if self.dtype else 1)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A tensor as the pickle gives it, not checked yet; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Unreadable:
    """A tensor that has no plain bytes, and why."""

    why: str


class Place(NamedTuple):
    """Where a storage's bytes lie in a file, and how many there are."""

    file: ByteSource
    offset: int
    size: int


Locate = Callable[[Storage], Place]


def storage_of(identity: Any) -> Storage:
    """The storage that a persistent id names; raises `ValueError` for an id of another form.

    Legacy files add a view (key, offset, size) of a storage that others may share.
    """
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("it refers to something that is no storage")
    _, kind, key, _, numel = identity[:5]
    if not isinstance(kind, Global) or kind.name not in _STORAGE_NAMES or type(numel) is not int or numel < 0:
        raise ValueError("it refers to a storage of no known kind")
    dtype = _STORAGE_NAMES[kind.name]
    whole = Storage(str(key), dtype, numel)
    view = identity[5] if len(identity) == 6 else None
    return whole if view is None else _part(whole, view)


def _part(whole: Storage, view: Any) -> Storage:
    if not isinstance(view, tuple) or len(view) != 3 or not _is_count(view[1:]) or sum(view[1:]) > whole.numel:
        raise ValueError("a storage's view lies outside it")
    width = whole.nbytes // whole.numel if whole.numel else 1
    return Storage(whole.key, whole.dtype, view[2], view[1] * width)


def _rebuild(arguments: tuple) -> View | Unreadable:
    storage, offset, shape, strides, *rest = arguments
    return _view(storage, offset, shape, strides, None, rest[2:])


def _rebuild_with_dtype(arguments: tuple) -> View | Unreadable:
    storage, offset, shape, strides, _, _, dtype, *rest = arguments
    return _view(storage, offset, shape, strides, dtype, rest)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any, extra: list) -> View | Unreadable:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    lazily = [name for name in ("conj", "neg") if extra and isinstance(extra[0], dict) and extra[0].get(name)]
    if lazily:
        return Unreadable(f"a lazy {lazily[0]} view")
    spelt = storage.dtype
    if dtype is not None:
        name = dtype.name if isinstance(dtype, Global) else repr(dtype)[:40]
        spelt = DTYPES.get(name.removeprefix("torch."))
        if spelt is None:
            return Unreadable(f"of dtype {name}")
    if spelt is None:
        return Unreadable("of no dtype")
    return View(storage, offset, tuple(shape), tuple(strides), spelt)


def _rebuild_subclass(arguments: tuple) -> Any:
    function, _, inner, *_ = arguments
    if not isinstance(function, Global) or not isinstance(inner, tuple):
        raise ValueError("a tensor is made by what cannot be called")
    return function.build(inner)


def _unreadable(why: str) -> Build:
    return lambda arguments: Unreadable(why)


_STORAGE_NAMES: Mapping[str, str | None] = {
    **{f"{module}.{name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in STORAGES.items()},
    **dict.fromkeys(["torch.storage.UntypedStorage", "torch.UntypedStorage"]),
}
NAMES: Mapping[str, Build] = {
    **{name: inert(name) for name in _HARMLESS},
    **{name: inert(name) for name in _STORAGE_NAMES},
    **{f"torch.{name}": inert(f"torch.{name}") for name in (*DTYPES, *_ODD_DTYPES)},
    **dict.fromkeys(_MAPS, plain_dict),
    "builtins.list": lambda arguments: [],
    "builtins.set": lambda arguments: set(),
    "torch.Size": lambda arguments: tuple(arguments[0]),
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_with_dtype,
    "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
    "torch._utils._rebuild_parameter_with_state": lambda arguments: arguments[0],
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch._utils._rebuild_qtensor": _unreadable("quantized"),
    "torch._utils._rebuild_sparse_tensor": _unreadable("sparse"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("on the meta device, without values"),
}
"""Every global that a torch file may ask for, and what stands in for it."""


class Found(NamedTuple):
    """The tensors of a file, and what a reader should know."""

    tensors: list[Tensor]
    notes: list[str]


def find_tensors(content: Any, locate: Locate, where: str) -> Found:
    """The model's tensors in what a file holds, each checked against its storage; raises `FormatError`."""
    key, entries = find_map(content, _is_tensor, where)
    views = {name: value for name, value in entries.items() if _is_tensor(value)}
    tensors = [_tensor(name, value, locate, where) for name, value in views.items()]
    return Found(tensors, [*notes_on(content, key, _is_tensor), *left_out(entries, _is_tensor), *_shared(views)])


def beside(content: Any, is_tensor: Callable[[Any], bool] | None = None) -> tuple[str, ...]:
    """The keys of what a file holds besides the model's tensors, for whoever does not write it on.

    >>> beside({"state_dict": {"w": View(Storage("0", "F32", 1), 0, (1,), (1,), "F32"), "n": 1}, "epoch": 3})
    ('epoch', 'n')
    """
    test = is_tensor or _is_tensor
    place, found = find_map(content, test, "it")
    others = [key for key in content if key != place] if place is not None else []
    return tuple(map(str, [*others, *(key for key, value in found.items() if not test(value))]))


def find_map(content: Any, is_tensor: Callable[[Any], bool], where: str) -> tuple[str | None, Mapping[str, Any]]:
    """The key under which the model's tensors lie (None: at the top) and the map itself; raises `FormatError`."""
    if not isinstance(content, dict):
        what = content.name if isinstance(content, Inert | Global) else type(content).__name__
        raise FormatError(f"{where} holds no map of tensors but a {what}", remedy="save a `state_dict()`")
    maps = {key: value for key, value in content.items()
            if isinstance(value, dict) and any(map(is_tensor, value.values()))}  # fmt: skip
    place = next((key for key in PLACES if key in maps), None)
    if place is not None:
        found = maps[place]
    elif any(map(is_tensor, content.values())):
        found = content
    elif len(maps) == 1:
        [(place, found)] = maps.items()
    else:
        keys = listing([repr(key)[:60] for key in content])
        raise FormatError(f"{where} holds no tensors that can be told to be the model's",
                          remedy=f"its keys are {keys}" if keys else "it is empty")  # fmt: skip
    for key, value in found.items():
        if is_tensor(value) and not isinstance(key, str):
            raise FormatError(
                f"{where} names a tensor {repr(key)[:60]}, not by text", remedy="save a `state_dict()`"
            )
    return place, found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, View | Unreadable)


def _tensor(name: str, view: View | Unreadable, locate: Locate, where: str) -> Tensor:
    if isinstance(view, Unreadable):
        raise FormatError(f"{where}: tensor {name!r} is {view.why}", remedy="save it dense, as plain numbers")
    place = locate(view.storage)
    fault = view_fault(view, place.size)
    if fault:
        raise FormatError(f"{where} is damaged", remedy=f"tensor {name!r} {fault}")
    assert view.dtype is not None
    width = dtypes.bits(view.dtype) // 8
    steps = tuple(stride * width for stride in view.strides)
    start = place.offset + view.storage.start + view.offset * width
    return Tensor(name, view.shape, view.dtype, strided(place.file, start, view.shape, steps, width))


def view_fault(view: View, available: int) -> str | None:
    """Why a view cannot be read from a storage of which `available` bytes are there; None where it can."""
    fault = dtypes.shape_fault(view.shape)
    if fault:
        return f"has {fault}"
    if len(view.strides) != len(view.shape) or not _is_count((view.offset, *view.strides)):
        return "has impossible strides"
    storage = view.storage
    if storage.start + storage.nbytes > available:
        return f"wants a storage of {storage.start + storage.nbytes:,} B, but {available:,} are there"
    if _end(view) > storage.nbytes:
        return "reaches beyond its storage"
    return None


def _end(view: View) -> int:
    """Where a view ends, in bytes from the beginning of its storage."""
    if 0 in view.shape or view.dtype is None:
        return 0
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    return (last + 1) * (dtypes.bits(view.dtype) // 8)


def span(view: View) -> tuple[int, int]:
    """Where a view begins and ends, in bytes from where its storage's lie in the file; equal when it is empty."""
    if not _end(view):
        return 0, 0
    begin = view.storage.start + view.offset * (dtypes.bits(view.dtype) // 8)  # type: ignore[arg-type]
    return begin, view.storage.start + _end(view)


def _is_count(values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def notes_on(content: Mapping[Any, Any], where: str | None, is_tensor: Callable[[Any], bool]) -> Iterator[str]:
    """What lies beside the model's tensors, which lie under `where`."""
    if "pytorch-lightning_version" in content:
        yield f"a checkpoint of Lightning {content['pytorch-lightning_version']!s:.20}"
    if where is not None:
        yield f"the tensors lie under {where!r}"
        strays = [str(key) for key, value in content.items() if is_tensor(value)]
        if strays:
            yield f"left out what lies beside them: {listing(strays)}"
    stale = [str(key) for key, value in content.items()
             if key != where and _STALE.search(str(key)) and isinstance(value, dict | list | Inert)]  # fmt: skip
    if stale:
        yield f"it also carries {listing(stale)}, which belongs to these tensors"


def left_out(entries: Mapping[str, Any], is_tensor: Callable[[Any], bool]) -> Iterator[str]:
    """What lies among them and is no tensor."""
    others = [str(name) for name, value in entries.items() if not is_tensor(value)]
    if others:
        yield f"left out what is no tensor: {listing(others)}"


def _shared(views: Mapping[str, Any]) -> Iterator[str]:
    """Names of the tensors that lie in the same bytes (tied weights)."""
    storages: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for name, view in views.items():
        if _end(view) and view.storage.nbytes:
            storages[view.storage.key].append((*span(view), name))
    for ranges in storages.values():
        yield from (f"these share their bytes: {listing(names)}" for names in _overlapping(sorted(ranges)))


def _overlapping(ranges: list[tuple[int, int, str]]) -> Iterator[list[str]]:
    names: list[str] = []
    reach = -1
    for begin, end, name in ranges:
        if begin >= reach:
            if len(names) > 1:
                yield names
            names = []
        names.append(name)
        reach = max(reach, end)
    if len(names) > 1:
        yield names
