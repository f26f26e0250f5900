"""Bytes on disk ↔ `Checkpoint`. One file a format; which one it is, is told by the content, not by the suffix."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, FormatError
from ckptswap.formats import safetensors
from ckptswap.formats.local import LocalFile, opened
from ckptswap.formats.smp_folder import open_smp_folder

__all__ = ["open_checkpoint", "write_checkpoint"]

_TAR = slice(257, 262)
_PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily, whatever its format; nothing in it is ever executed.

    Raises `FileError` when the path leads nowhere and `FormatError` when the content is damaged, hostile or
    of no format we know. Close it, or use it in a `with`.
    """
    place = Path(path)
    if os.path.isdir(place):
        return open_smp_folder(place)
    head, size = _head(place)
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(place)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _open_legacy(place)
    if safetensors.looks_like(head, size) or place.suffix == ".safetensors":
        return safetensors.open_safetensors(place)
    raise _refusal(place, head)


def write_checkpoint(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> Path:
    """Write a checkpoint as safetensors, atomically, and return where it is.

    `metadata` is added to what the checkpoint says of itself. Raises `FileError` when the target exists and
    `force` is not given.
    """
    target = Path(path)
    safetensors.write_safetensors(
        checkpoint, target, metadata={**checkpoint.metadata, **(metadata or {})}, force=force
    )
    return target


def _open_zip(path: Path) -> Checkpoint:
    from ckptswap.formats.archive import Archive
    from ckptswap.formats.npz import is_npz, open_npz
    from ckptswap.formats.torch_zip import open_torch_zip

    with opened(path) as file:
        archive = Archive(file)
        return open_npz(archive, file) if is_npz(archive) else open_torch_zip(archive, file)


def _open_legacy(path: Path) -> Checkpoint:
    from ckptswap.formats.torch_legacy import open_torch_legacy

    with opened(path) as file:
        return open_torch_legacy(file)


def _head(path: Path) -> tuple[bytes, int]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileError(f"{path} is neither a file nor a folder", remedy="name a checkpoint")
    file = LocalFile(path)
    try:
        head = file.pread(512, 0)
    finally:
        file.close()
    if not head:
        raise FormatError(f"{path} is empty", remedy="it was perhaps never written to its end")
    if head.startswith(b"version https://git-lfs"):
        raise FormatError(f"{path} is a git-lfs pointer, not the file itself", remedy="run `git lfs pull`")
    return head, file.size


def _refusal(path: Path, head: bytes) -> FormatError:
    """Say what the file is, as well as we can tell."""
    if head[_TAR] == b"ustar":
        return FormatError(f"{path} is a tar archive, as torch wrote before 0.1.10",
                           remedy="where you trust it, load it with an old torch and save it again")  # fmt: skip
    if path.suffix in _PICKLE_SUFFIXES:
        return _refused_pickle(path, head)
    return FormatError(f"{path} is no checkpoint that we can read", remedy=_what_it_is(head))


def _refused_pickle(path: Path, head: bytes) -> FormatError:
    """An old pickle may look like text; name what it asks for if it is one."""
    from ckptswap.formats.pickles import read_pickle
    from ckptswap.formats.torch_pickle import NAMES

    try:
        read_pickle(io.BytesIO(head), NAMES, where=str(path))
    except FormatError as error:
        if "asks for" in error.message:
            return error
    return FormatError(f"{path} is no file of torch.save", remedy=_what_it_is(head))


def _what_it_is(head: bytes) -> str:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else ""
    if text.strip() and "\x00" not in text:
        return f"it looks like text, beginning {text.strip()[:30]!r}"
    return "it is none of safetensors, torch, npz"
