"""Bytes on disk ↔ `Checkpoint`. One file a format; which one it is, is told by the content, not by the suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, FormatError
from ckptswap.formats import safetensors, torch_pickle
from ckptswap.formats.local import LocalFile
from ckptswap.formats.smp_folder import open_smp_folder

__all__ = ["open_checkpoint", "write_checkpoint"]


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily: a safetensors file, a torch file, or an smp `save_pretrained` folder.

    Raises `FileError` when the path leads nowhere and `FormatError` when the content is damaged, hostile or
    of no format we know. Close it, or use it in a `with`.
    """
    place = Path(path)
    if place.is_dir():
        return open_smp_folder(place)
    head, size = _head(place)
    if torch_pickle.looks_like(head):
        return torch_pickle.open_torch(place)
    if safetensors.looks_like(head, size) or place.suffix == ".safetensors":
        return safetensors.open_safetensors(place)
    raise FormatError(f"{place} is no checkpoint that we can read", remedy=_what_it_is(head))


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


def _head(path: Path) -> tuple[bytes, int]:
    if path.exists() and not path.is_file():
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


def _what_it_is(head: bytes) -> str:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else ""
    if text.isprintable() or (text.strip().isascii() and "\x00" not in text and text.strip()):
        return f"it looks like text, beginning {text.strip()[:30]!r}"
    return "it is neither safetensors nor a file of torch.save"
