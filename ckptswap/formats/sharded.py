"""Checkpoints in several files with an index: `model.safetensors.index.json`, as Hugging Face writes them.

The index maps each tensor to the plain name of a file in its own folder; a symlink may stand there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from pathlib import Path

from ckptswap.checkpoint import Checkpoint, Entry, Tensor
from ckptswap.errors import FileError, FormatError
from ckptswap.formats.atomic import sync_folder, write_text
from ckptswap.formats.companions import Companion, take_along
from ckptswap.formats.objects import is_plain_name, parse_object, strings
from ckptswap.formats.safetensors import write_safetensors
from ckptswap.formats.streaming import Watch, unwatched
from ckptswap.storage import LocalFile
from ckptswap.ties import Ties

INDEX = ".index.json"
INDEX_MOST = 100_000_000
DEFAULT_INDEX = "model.safetensors.index.json"
SHARD_SIZE = 5_000_000_000
"""Bytes of tensors in a shard, as Hugging Face's tools choose by default."""


def open_sharded(index: Path, open_file: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open all shards lazily; raises `FormatError` where index and shards disagree."""
    places, metadata = _read_index(index)
    with ExitStack() as stack:
        shards = {
            name: stack.enter_context(_shard(index, name, open_file)) for name in dict.fromkeys(places.values())
        }
        tensors = [_tensor(index, shards[shard], name, shard) for name, shard in places.items()]
        _check_listed(index, places, shards)
        found = {key: value for shard in shards.values() for key, value in shard.metadata.items()}
        formats = dict.fromkeys(shard.format for shard in shards.values())
        return Checkpoint(
            tensors,
            path=str(index),
            format=f"sharded {' and '.join(formats)}",
            metadata={**found, **metadata},
            notes=dict.fromkeys(note for shard in shards.values() for note in shard.notes),
            unread={name: what for shard in shards.values() for name, what in shard.unread.items()},
            files=[index, *(file for shard in shards.values() for file in shard.files)],
            close=stack.pop_all().close,
            ties=reduce(Ties.joined, (shard.ties for shard in shards.values()), Ties()),
        )


def _read_index(index: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Tensor → shard, and the metadata."""
    file = LocalFile(index)
    try:
        if file.size > INDEX_MOST:
            raise ValueError(f"takes {file.size:,} bytes; {INDEX_MOST:,} is the most")
        found = parse_object(file.pread(file.size, 0))
        places = found.get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ValueError("has no weight_map")
        for name, shard in places.items():
            if not isinstance(shard, str) or not is_plain_name(shard):
                raise ValueError(f"puts {name!r} into {repr(shard)[:80]}, which is no plain file name")
    except ValueError as error:
        raise FormatError(f"{index} is no sound index of shards", remedy=f"it {error}") from None
    finally:
        file.close()
    return places, strings(found.get("metadata"))


def _shard(index: Path, name: str, open_file: Callable[[Path], Checkpoint]) -> Checkpoint:
    path = index.parent / name
    if not os.path.isfile(path):
        raise FormatError(f"{index} lists the shard {name!r}, which is not there", remedy="fetch the missing file")
    return open_file(path)


def _tensor(index: Path, shard: Checkpoint, name: str, file: str) -> Tensor:
    entry = shard.get(name)
    if entry is None:
        raise FormatError(
            f"{index} and its shards disagree", remedy=f"tensor {name!r} is not in its shard {file!r}"
        )
    return Tensor(name, entry.shape, entry.dtype, entry.source)


def _check_listed(index: Path, places: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> None:
    for file, shard in shards.items():
        for name in shard:
            listed = places.get(name)
            if listed != file:
                where = "absent from the index" if listed is None else f"listed for {listed!r}"
                fault = f"tensor {name!r} is in {file!r} but {where}"
                raise FormatError(f"{index} and its shards disagree", remedy=fault)


def write_sharded(
    checkpoint: Checkpoint,
    index: Path,
    *,
    metadata: Mapping[str, str],
    shard_size: int,
    made_of: Sequence[Path] = (),
    watch: Watch = unwatched,
) -> None:
    """Write shards beside the index and the index last; a file is whole or not there.

    Raises `FileError` when a file of one of these names exists: no set of files can be replaced at once, and some
    of the new among the old would open as if nothing were wrong. Shards written before a failure are taken away.
    """
    parts = list(_parts(list(checkpoint.values()), shard_size))
    stem = index.name.removesuffix(INDEX).removesuffix(".safetensors")
    names = [f"{stem}-{at:05}-of-{len(parts):05}.safetensors" for at in range(1, len(parts) + 1)]
    for name in (index.name, *names):
        if os.path.lexists(index.parent / name):
            raise FileError(
                f"{index.parent / name} exists already", remedy="shards replace nothing: write elsewhere"
            )
    with ExitStack() as undo:
        for name, part in zip(names, parts, strict=True):
            write_safetensors(part, index.parent / name, metadata={}, made_of=made_of, watch=watch)
            undo.callback((index.parent / name).unlink, missing_ok=True)
        places = {entry.name: name for name, part in zip(names, parts, strict=True) for entry in part}
        listing = {"metadata": {**metadata, "total_size": checkpoint.nbytes}, "weight_map": places}
        write_text(index, json.dumps(listing, indent=2) + "\n", force=False)
        undo.pop_all()


def write_sharded_folder(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    shard_size: int,
    made_of: Sequence[Path] = (),
    watch: Watch = unwatched,
    others: Iterable[Companion] = (),
) -> None:
    """Write a new folder of shards and the `others` that go with them; it appears whole or not at all. Raises
    `FileError` when it exists."""
    with new_folder(folder) as beside:
        take_along(others, beside)
        write_sharded(
            checkpoint,
            beside / DEFAULT_INDEX,
            metadata=metadata,
            shard_size=shard_size,
            made_of=made_of,
            watch=watch,
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `folder` when the block ends well, and else leaves no trace.

    Raises `FileError` when something of that name exists, `force` or not: nobody's folder is replaced.
    """
    if os.path.lexists(folder):
        raise FileError(f"{folder} exists already", remedy="name a folder that does not exist yet")
    beside = folder.parent / f".{folder.name[:60]}.{secrets.token_hex(4)}.part"
    try:
        beside.mkdir()
        yield beside
        os.rename(beside, folder)
        sync_folder(folder.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{folder} could not be written ({reason})", remedy="nothing was left behind") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _parts(entries: Sequence[Entry], size: int) -> Iterator[list[Entry]]:
    """Entries in their order, cut where a part would grow beyond `size` bytes."""
    part: list[Entry] = []
    taken = 0
    for entry in entries:
        if part and taken + entry.nbytes > size:
            yield part
            part, taken = [], 0
        part.append(entry)
        taken += entry.nbytes
    yield part
