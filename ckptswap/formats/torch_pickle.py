"""Files written by `torch.save`: .pt, .pth, .bin, .ckpt, zip or legacy.

Always `weights_only=True`: a pickle that asks for anything but tensors and plain containers is refused by name.
The tensors are looked for where training scripts put them (`state_dict`, `model`, …, Lightning's wrapper).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.errors import FormatError
from ckptswap.formats.local import LocalFile

FORMAT_ZIP, FORMAT_LEGACY = "torch", "torch legacy"
PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which training scripts keep the model's tensors, the likeliest first."""
_STALE = re.compile(r"optim|ema|momentum|averag", re.IGNORECASE)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


@dataclass(frozen=True)
class TorchSource:
    """A torch tensor's values as C-contiguous bytes; a view is straightened only when it is read."""

    tensor: Any

    def read_into(self, buffer: memoryview, offset: int) -> None:
        import torch

        flat = self.tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        buffer[:] = memoryview(flat.numpy())[offset : offset + len(buffer)]


def looks_like(head: bytes) -> bool:
    """Whether a file begins like a zip archive or like a pickle of protocol 2 and later."""
    return head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05")


def open_torch(path: Path) -> Checkpoint:
    """Open a `torch.save` file; raises `FormatError` when it is damaged, hostile, or holds no tensors."""
    file = LocalFile(path)
    is_zip = file.pread(4, 0) == b"PK\x03\x04"
    file.close()
    content = _load(path, mmap=is_zip)
    where, tensors = _find_tensors(content, path)
    return Checkpoint(
        [_tensor(name, value, path) for name, value in tensors.items() if _is_tensor(value)],
        path=str(path),
        format=FORMAT_ZIP if is_zip else FORMAT_LEGACY,
        notes=[*_notes(content, where), *_skipped(tensors)],
        files=[path],
    )


def _load(path: Path, *, mmap: bool) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        raise _explain(path, error) from None


def _explain(path: Path, error: Exception) -> FormatError:
    """torch's refusals run over many lines and suggest turning the guard off; say what was asked for instead."""
    text = _ANSI.sub("", str(error))
    asked = re.search(
        r"GLOBAL ([\w.]+)|global ([\w.]+)|class ([\w.]+)|Unsupported (?:global|class)\S* ?([\w.]+)", text
    )
    if asked:
        name = next(group for group in asked.groups() if group)
        return FormatError(
            f"{path} is a pickle that asks for {name}, which could run code; it was not loaded",
            remedy="if it is a whole model, save its `state_dict()` where you trust it",
        )
    first = text.strip().splitlines()[0][:200] if text.strip() else repr(error)
    return FormatError(f"{path} is not a sound torch file", remedy=first)


def _find_tensors(content: Any, path: Path) -> tuple[str | None, Mapping[str, Any]]:
    """The key under which the tensors lie (None: at the top) and the map itself."""
    if not isinstance(content, Mapping):
        raise FormatError(f"{path} holds no map of tensors but a {type(content).__name__}",
                          remedy="save a `state_dict()`")  # fmt: skip
    if any(_is_tensor(value) for value in content.values()):
        return None, _string_keys(content, path)
    maps = {key: value for key, value in content.items() if _is_map(value)}
    place = next((key for key in PLACES if key in maps), None)
    if place is None and len(maps) == 1:
        place = next(iter(maps))
    if place is None:
        keys = ", ".join(repr(key) for key in list(content)[:10])
        raise FormatError(f"{path} holds no tensors that can be told to be the model's",
                          remedy=f"its keys are {keys}" if keys else "it is empty")  # fmt: skip
    return place, _string_keys(maps[place], path)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_is_tensor(each) for each in value.values())


def _string_keys(tensors: Mapping[Any, Any], path: Path) -> Mapping[str, Any]:
    for key in tensors:
        if not isinstance(key, str):
            raise FormatError(f"{path} names a tensor {key!r}, not by text", remedy="save a `state_dict()`")
    return tensors


def _tensor(name: str, value: Any, path: Path) -> Tensor:
    import torch

    dtype = _DTYPES.get(str(value.dtype).removeprefix("torch."))
    if dtype is None or value.layout is not torch.strided or value.is_meta:
        kind = f"{value.dtype}, {value.layout}, {value.device}"
        raise FormatError(f"{path}: tensor {name!r} ({kind}) cannot be read", remedy="save it dense, as numbers")
    return Tensor(name, tuple(value.shape), dtype, TorchSource(value))


def _skipped(tensors: Mapping[str, Any]) -> Iterator[str]:
    others = [name for name, value in tensors.items() if not _is_tensor(value)]
    if others:
        yield f"left out what is no tensor: {', '.join(others[:10])}"


def _notes(content: Mapping[Any, Any], where: str | None) -> Iterator[str]:
    if where is None:
        return
    yield f"the tensors lie under {where!r}"
    stale = [str(key) for key in content if key != where and _STALE.search(str(key))]
    if stale:
        yield f"it also carries {', '.join(stale)}, which belongs to these tensors"
