"""What `torch.save` pickles, read without torch: tensors as views of storages.

A pickle that asks for anything but tensors, plain containers and a few harmless records is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ckptswap import dtypes
from ckptswap.entries import Unread
from ckptswap.formats.inert import CONSTRUCTORS, Build, Global, attribute, inert, plain_dict, shown
from ckptswap.formats.strided import PieceSource, strided
from ckptswap.sources import FileRange
from ckptswap.storage import ByteSource

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
_DIMENSIONS_MOST = 64
KEY_MOST = 200  # letters of a storage's key; torch counts them
_ROOMS = [f"numpy.{core}" for core in ("core", "_core")]  # before numpy 2, and since
RECONSTRUCTED = frozenset(f"{room}.multiarray._reconstruct" for room in _ROOMS)
FROM_BUFFER = frozenset(f"{room}.numeric._frombuffer" for room in _ROOMS)  # protocol 5
SCALARS = tuple(f"{room}.multiarray.scalar" for room in _ROOMS)
"""What makes numpy's arrays and numbers."""
FROM_DEVICE = frozenset(
    f"torch._utils.{name}"
    for name in (
        "_rebuild_device_tensor_from_numpy",
        "_rebuild_xla_tensor",
        "_rebuild_device_tensor_from_cpu_tensor",
    )
)
"""What makes torch's tensors of devices, of numpy's arrays, or since 2.4 of tensors."""
_HARMLESS = (  # noqa: SIM905
    "_codecs.encode argparse.Namespace builtins.bytearray builtins.complex builtins.frozenset builtins.range "
    "builtins.set builtins.slice datetime.date datetime.datetime datetime.timedelta datetime.timezone "
    "numpy.dtype numpy.ndarray torch.Tensor torch.device torch.nn.parameter.Buffer torch.nn.parameter.Parameter "
    "torch.serialization._get_layout torch.per_tensor_affine torch.per_tensor_symmetric "
    "torch.per_channel_affine torch.per_channel_symmetric torch.per_channel_affine_float_qparams "
    "torch.torch_version.TorchVersion _io.BytesIO"
).split()
PATHS = tuple(
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")  # the latter in Python 3.13, and in no other
    for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
)
"""The classes of paths, by all the names that they are pickled by."""
_MAPS = (  # noqa: SIM905
    "builtins.dict collections.Counter collections.OrderedDict collections.defaultdict "
    "lightning.fabric.utilities.data.AttributeDict lightning_fabric.utilities.data.AttributeDict "
    "pytorch_lightning.utilities.parsing.AttributeDict"
).split()


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A run of bytes that tensors are views of; `start` in bytes."""

    key: str
    dtype: str
    numel: int
    start: int = 0
    element: str = ""  # qint8 and its kin, which torch calls numbers of their own

    @property
    def nbytes(self) -> int:
        return self.numel * dtypes.bits(self.dtype) // 8


class Stretch(NamedTuple):
    """Where a storage's bytes lie in a file, and how many there are."""

    file: ByteSource
    offset: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A tensor as the pickle gives it, not checked yet; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return dtypes.bits(self.dtype) // 8

    @property
    def end(self) -> int:
        """Where it ends, in bytes from the beginning of its storage."""
        if 0 in self.shape:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (self.offset + last + 1) * self.width

    @property
    def span(self) -> tuple[int, int]:
        """Where it begins and ends, in bytes from where its storage's lie in the file; equal when it is empty."""
        start, end = self.storage.start, self.end
        return (start + self.offset * self.width, start + end) if end else (0, 0)

    def place(self, stretch: Stretch) -> tuple[int, tuple[int, ...]]:
        """Where it begins in a file in which its storage lies there, and its strides, in bytes."""
        start = stretch.offset + self.storage.start + self.offset * self.width
        return start, tuple(stride * self.width for stride in self.strides)

    def source(self, stretch: Stretch) -> FileRange | PieceSource:
        """Its values, of a file in which its storage lies there."""
        start, strides = self.place(stretch)
        return strided(stretch.file, start, self.shape, strides, self.width)


Locate = Callable[[Storage], Stretch]


class Storages(dict[str, Storage]):
    """The storages of one file by their keys, and, called, by the ids that its pickle gives them.

    As in torch, the first id with a key says of which dtype its storage is; what later ones say of it is ignored.
    Legacy files add a view (key, offset, size) of a storage, which has a key of its own. In an archive all keys
    begin with the `folder` that holds the storages.
    """

    def __init__(self, folder: str = "") -> None:
        super().__init__()
        self.folder = folder

    def __call__(self, identity: Any) -> Storage | Global:
        """The storage that a persistent id names, or the class: legacy files of whole models keep the source of
        these beside them. Raises `ValueError` for an id of another form."""
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            if isinstance(identity[1], Global):
                return identity[1]
            raise ValueError("it keeps the source of what is not a class")
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise ValueError("it refers to something that is not a storage")
        _, kind, key, _, numel, *view = identity
        if not isinstance(kind, Global) or kind.name not in _STORAGE_NAMES or not are_counts((numel,)):
            raise ValueError("it refers to a storage of no known kind")
        own_key = self.folder + _storage_key(key)
        mentioned = Storage(own_key, _STORAGE_NAMES[kind.name], numel, 0, _quantized(kind.name))
        root = self.setdefault(mentioned.key, mentioned)
        root = root if root.numel else mentioned
        if not view or view[0] is None:
            return root
        part_key, part = _part(root, mentioned, *view)
        known = self.setdefault(part_key, part)
        return known if known.numel else part


def _quantized(name: str) -> str:
    """The dtype of a quantized storage, of the class's name; '' for others."""
    own = name.rpartition(".")[2]
    return own.removesuffix("Storage").lower() if own.startswith("Q") else ""


def _storage_key(key: Any) -> str:
    if not isinstance(key, str) or len(key) > KEY_MOST:
        raise ValueError("it refers to a storage by what is not a plain key")
    return key


def _part(root: Storage, mentioned: Storage, view: Any) -> tuple[str, Storage]:
    """The key of a view of a storage, and the view."""
    if not isinstance(view, tuple) or len(view) != 3 or not are_counts(view[1:]):
        raise ValueError("a storage's view has no sound place")
    width = dtypes.bits(mentioned.dtype) // 8
    if sum(view[1:]) * width > root.nbytes:
        raise ValueError("a storage's view lies outside it")
    return _storage_key(view[0]), replace(mentioned, key=root.key, numel=view[2], start=view[1] * width)


def _rebuild(arguments: tuple) -> View | Unread:
    storage, offset, shape, strides, *rest = arguments
    return _view(storage, offset, shape, strides, None, rest[2:])


def _rebuild_with_dtype(arguments: tuple) -> View | Unread:
    storage, offset, shape, strides, _, _, dtype, *rest = arguments
    return _view(storage, offset, shape, strides, dtype, rest)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any, extra: list) -> View | Unread:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    name = (storage.element or storage.dtype) if dtype is None else _dtype_name(dtype)
    lazily = [word for word in ("conj", "neg") if extra and isinstance(extra[0], dict) and extra[0].get(word)]
    if lazily:
        return _odd(f"a lazy {lazily[0]} view", shape, DTYPES.get(name, name))
    spelt = name if dtype is None and not storage.element else DTYPES.get(name)
    if spelt is None:
        return _odd(f"a tensor of dtype {name}", shape, name)
    return View(storage, offset, _sizes(shape), _sizes(strides), spelt)


def _rebuild_quantized(arguments: tuple) -> Unread:
    """Whole numbers, of which a scale and a zero point, or one for each channel, make the values."""
    storage, _, shape, *_ = arguments
    if not isinstance(storage, Storage) or not storage.element:
        raise ValueError("a quantized tensor has no storage")
    return _odd(f"a {storage.element} tensor", shape, storage.element)


def _rebuild_sparse(arguments: tuple) -> Unread:
    """Indices, values and the shape that they are in, in the one order or the other."""
    _, parts = arguments
    shape = next((part for part in parts if isinstance(part, tuple | list)), None)
    return _odd("a sparse tensor", shape, "sparse")


def _rebuild_meta(arguments: tuple) -> Unread:
    dtype, shape, *_ = arguments
    name = _dtype_name(dtype)
    return _odd("a tensor on the meta device, without values", shape, DTYPES.get(name, name))


def _rebuild_wrapper(arguments: tuple) -> Unread:
    """A class that keeps its values in tensors of its own."""
    kind, dtype, shape, *_ = arguments
    return _odd(f"a tensor of class {shown(kind)}", shape, _dtype_name(dtype))


def _odd(what: str, shape: Any, dtype: str) -> Unread:
    """A tensor without plain numbers. Raises `ValueError` for an impossible shape."""
    sizes = _sizes(shape)
    if not are_counts(sizes) or dtypes.shape_fault(sizes):
        raise ValueError("a tensor has an impossible shape")
    return Unread(what, sizes, dtype)


def dtype_of(dtype: Any) -> str | None:
    """Our word for a dtype of torch's; None for one that we have not, and for all else.

    >>> dtype_of(Global("torch.bfloat16", inert("torch.bfloat16"))), dtype_of("bfloat16")
    ('BF16', None)
    """
    return DTYPES.get(_dtype_name(dtype)) if isinstance(dtype, Global) else None


def _dtype_name(dtype: Any) -> str:
    return shown(dtype).removeprefix("torch.")


def _sizes(given: Any) -> tuple[int, ...]:
    """Sizes or strides as the pickle gives them; what they are is checked when the view is."""
    if not isinstance(given, tuple | list):
        raise ValueError("a tensor has no shape")
    if len(given) > _DIMENSIONS_MOST:
        raise ValueError(f"a tensor has {len(given)} dimensions")
    return tuple(given)


def _rebuild_subclass(arguments: tuple) -> Any:
    function, _, inner, *_ = arguments
    if not isinstance(function, Global) or function.build not in _BUILDERS or not isinstance(inner, tuple):
        raise ValueError("a tensor is made by what makes no tensors")
    return function.build(inner)


_ODD: Mapping[str, Build] = {
    "_rebuild_qtensor": _rebuild_quantized,
    "_rebuild_sparse_tensor": _rebuild_sparse,
    "_rebuild_meta_tensor_no_storage": _rebuild_meta,
    "_rebuild_wrapper_subclass": _rebuild_wrapper,
    "_rebuild_nested_tensor": lambda arguments: Unread("a nested tensor", None, "nested"),
}
_BUILDERS: tuple[Build, ...] = (_rebuild, _rebuild_with_dtype, *_ODD.values())
_STORAGE_NAMES: Mapping[str, str] = {
    **{f"{module}.{name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in STORAGES.items()},
    **dict.fromkeys(["torch.storage.UntypedStorage", "torch.UntypedStorage"], "U8"),
}
NAMES: Mapping[str, Build] = {
    **CONSTRUCTORS,
    **{name: inert(name) for name in (*_HARMLESS, *PATHS, *RECONSTRUCTED, *FROM_BUFFER, *FROM_DEVICE, *SCALARS)},
    **{name: inert(name) for name in _STORAGE_NAMES},
    **{f"torch.{name}": inert(f"torch.{name}") for name in (*DTYPES, *_ODD_DTYPES)},
    **dict.fromkeys(_MAPS, plain_dict),
    "builtins.getattr": attribute,
    "builtins.list": lambda arguments: [],
    "torch.Size": lambda arguments: _sizes(arguments[0]),
    **dict.fromkeys(["torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"], _rebuild),
    "torch._utils._rebuild_tensor_v3": _rebuild_with_dtype,
    "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
    "torch._utils._rebuild_parameter_with_state": lambda arguments: arguments[0],
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    **{f"torch._utils.{name}": build for name, build in _ODD.items()},
}
"""Every global that a torch file may ask for, and what stands in for it."""


def view_fault(view: View, available: int) -> str | None:
    """Why a view cannot be read from a storage of which `available` bytes are there; None where it can."""
    if fault := dtypes.shape_fault(view.shape):
        return f"has {fault}"
    if len(view.strides) != len(view.shape) or not are_counts((view.offset, *view.strides)):
        return "has impossible strides"
    storage = view.storage
    if storage.start + storage.nbytes > available:
        return f"wants a storage of {storage.start + storage.nbytes:,} B, but {available:,} are there"
    if view.end > storage.nbytes:
        return "reaches beyond its storage"
    return None


def are_counts(values: Any) -> bool:
    """Whether these are whole numbers that a file may count by."""
    return all(type(value) is int and 0 <= value < 2**63 for value in values)
