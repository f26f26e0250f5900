"""Bytes on disk ↔ `Checkpoint`. One file a format; which one it is, is told by the content, not by the suffix, but
what is named `.safetensors` has to be it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, FormatError, UsageError, listing
from ckptswap.formats import safetensors
from ckptswap.formats.companions import Companion
from ckptswap.formats.prefix import common_prefix
from ckptswap.formats.sharded import INDEX, SHARD_SIZE, open_sharded, write_sharded, write_sharded_folder
from ckptswap.formats.smp_folder import WEIGHTS, open_smp_folder
from ckptswap.formats.sniff import kind_of
from ckptswap.formats.streaming import Progress, Watch, watch_of
from ckptswap.storage import LocalFile, opened

__all__ = ["SHARD_SIZE", "common_prefix", "open_checkpoint", "refuse_unread", "write_checkpoint"]

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily, whatever its format; nothing in it is ever executed.

    Raises `FileError` when the path leads nowhere and `FormatError` when the content is damaged, hostile or
    of no format we know. Close it, or use it in a `with`.
    """
    place = Path(path)
    checkpoint = _open_folder(place) if os.path.isdir(place) else _open_file(place)
    prefix = common_prefix(checkpoint)
    if prefix:
        checkpoint.notes = (*checkpoint.notes, f"every name begins with {prefix!r}")
    return checkpoint


def _open_folder(folder: Path) -> Checkpoint:
    if (folder / ".metadata").is_file():
        from ckptswap.formats.distributed import open_distributed

        return open_distributed(folder)
    indexes = sorted(folder.glob(f"*{INDEX}"))
    if len(indexes) == 1:
        return _open_index(indexes[0])
    if (folder / WEIGHTS).is_file():
        return open_smp_folder(folder)
    endings = (".safetensors", *TORCH_SUFFIXES)
    inside = [each.name for each in sorted(folder.iterdir()) if each.name.endswith(endings)]
    names = [index.name for index in indexes] or inside
    remedy = f"name one of {listing(names)}" if names else "name the checkpoint file itself"
    raise FileError(f"{folder} is a folder, and not of a form that we read", remedy=remedy)


def _open_file(path: Path) -> Checkpoint:
    """One file, or the index of several, told by how it begins."""
    head = _head(path)
    if path.name.endswith(INDEX):
        return _open_index(path)
    kind = kind_of(head)
    if kind == "safetensors":
        return safetensors.open_safetensors(path)
    if kind == "zip":
        _refuse_disguise(path, "a zip archive, as torch and numpy write them")
        return _open_zip(path)
    if kind == "pickle":
        _refuse_disguise(path, "a pickle, as torch writes them")
        return _open_legacy(path)
    from ckptswap.formats.foreign import refuse_foreign

    refuse_foreign(path, head)
    if path.suffix == ".safetensors":
        return safetensors.open_safetensors(path)
    raise FormatError(f"{path} is no checkpoint that we can read", remedy="it is none of safetensors, torch, npz")


def _refuse_disguise(path: Path, what: str) -> None:
    """A name that promises safetensors promises a file without code."""
    if path.suffix == ".safetensors":
        raise FormatError(
            f"{path} is {what}, not a safetensors file", remedy="if you want it all the same, rename it"
        )


def _open_index(path: Path) -> Checkpoint:
    return open_sharded(path, _open_shard)


def _open_shard(path: Path) -> Checkpoint:
    if path.name.endswith(INDEX):
        raise FormatError(f"{path} is an index, not a shard", remedy="the index that lists it is damaged")
    return _open_file(path)


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


def _head(path: Path) -> bytes:
    file = LocalFile(path)
    try:
        head = file.pread(512, 0)
    finally:
        file.close()
    if not head:
        raise FormatError(f"{path} is empty", remedy="it was perhaps never written to its end")
    return head


def write_checkpoint(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    shard_size: int = SHARD_SIZE,
    drop_unread: bool = False,
    made_of: Sequence[Path] | None = None,
    progress: Progress | None = None,
    others: Iterable[Companion] = (),
) -> Path:
    """Write a checkpoint in the format that the path's ending names, atomically, and return where it is.

    `.safetensors` (also where there is no ending), `.npz`, `.pt` `.pth` `.bin` `.ckpt`; `.index.json` or a path
    that ends with `/` for shards of at most `shard_size` bytes, in a new folder with the `others`. `metadata` is
    added to what the checkpoint says of itself. `drop_unread` leaves out what holds values and is not read, which
    is else refused before anything is written. New files are no more open than those that they are `made_of`
    (default: the checkpoint's own). Raises `FileError` when the target exists and `force` is not given, or is a
    set of shards, which replaces nothing; `FormatError` when the format cannot hold a tensor or the source is
    damaged, `UsageError` for another ending.
    """
    from ckptswap.formats.checksums import checked_bytes, refuse_damaged

    target = Path(path)
    refuse_unread(checkpoint, drop_unread)
    said = {**checkpoint.metadata, **(metadata or {})}
    sources = checkpoint.files if made_of is None else made_of
    watch = watch_of(progress, checked_bytes(checkpoint) + checkpoint.nbytes)
    refuse_damaged(checkpoint, watch=watch)
    if os.fspath(path).endswith("/"):
        write_sharded_folder(
            checkpoint,
            target,
            metadata=said,
            shard_size=shard_size,
            made_of=sources,
            watch=watch,
            others=others,
        )
    elif target.name.endswith(INDEX):
        write_sharded(checkpoint, target, metadata=said, shard_size=shard_size, made_of=sources, watch=watch)
    else:
        _write_file(checkpoint, target, said, force, sources, watch)
    return target


def refuse_unread(checkpoint: Checkpoint, drop_unread: bool) -> None:
    """Raises `FormatError` where what is about to be written would lack values, and that was not allowed."""
    if checkpoint.unread and not drop_unread:
        raise FormatError(f"{checkpoint.unread_note}, and would be lost",
                          remedy="leave them out with --drop-unread (in Python: drop_unread=True)")  # fmt: skip


def _write_file(
    checkpoint: Checkpoint,
    target: Path,
    metadata: Mapping[str, str],
    force: bool,
    made_of: Sequence[Path],
    watch: Watch,
) -> None:
    if target.suffix in TORCH_SUFFIXES:
        from ckptswap.formats.torch_writer import write_torch as write
    elif target.suffix == ".npz":
        from ckptswap.formats.npz_writer import write_npz as write
    elif target.suffix in ("", ".safetensors"):
        write = safetensors.write_safetensors
    else:
        known = ", ".join((".safetensors", ".npz", *TORCH_SUFFIXES, INDEX))
        raise UsageError(f"{target} names no format that we write", remedy=f"end it with one of {known}")
    write(checkpoint.values(), target, metadata=metadata, force=force, made_of=made_of, watch=watch)
