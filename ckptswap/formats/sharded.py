"""Checkpoints in several files with an index: `model.safetensors.index.json`, as Hugging Face writes them.

The index maps each tensor to the plain name of a file in its own folder; a symlink may stand there.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.errors import FileError, FormatError
from ckptswap.formats.atomic import sync_folder, write_text
from ckptswap.formats.companions import stays, take_along
from ckptswap.formats.format import INDEX, Format
from ckptswap.formats.objects import is_plain_name, parse_object, strings
from ckptswap.formats.opening import open_file
from ckptswap.formats.safetensors import write_safetensors
from ckptswap.formats.smp_folder import CONFIG, config_of
from ckptswap.formats.target import Target
from ckptswap.home import LocalHome
from ckptswap.plainfiles import refuse_elsewhere
from ckptswap.storage import ByteSource, Folder
from ckptswap.ties import Ties

INDEX_MOST = 100_000_000
DEFAULT_INDEX = f"model.safetensors{INDEX}"


def _inside(folder: Folder) -> str | None:
    indexes = [name for name in folder.names() if name.endswith(INDEX)]
    return indexes[0] if len(indexes) == 1 else None


def _config(folder: Folder) -> dict[str, str]:
    """What config.json says; nothing where a link leads out of the folder, or where it is not JSON: shards open
    without it."""
    if folder.path is not None and not stays(folder.path / CONFIG):
        return {}
    with suppress(FormatError):
        return config_of(folder)
    return {}


def open_sharded(index: ByteSource, folder: Folder) -> Checkpoint:
    """Open all shards lazily; raises `FormatError` where index and shards disagree."""
    places, metadata = _read_index(index)
    with ExitStack() as stack:
        files = dict.fromkeys(places.values())
        shards = {name: stack.enter_context(_shard(index, name, folder)) for name in files}
        tensors = [_tensor(index, shards[shard], name, shard) for name, shard in places.items()]
        _check_listed(index, places, shards)
        parts = shards.values()
        checkpoint = Checkpoint(
            tensors,
            path=index.name,
            format=f"sharded {' and '.join(dict.fromkeys(shard.format for shard in parts))}",
            metadata={key: value for shard in parts for key, value in shard.metadata.items()}
            | metadata
            | _config(folder),
            notes=[*dict.fromkeys(note for shard in parts for note in shard.notes)],
            unread={name: what for shard in parts for name, what in shard.unread.items()},
            sources=[index, *(source for shard in parts for source in shard.sources)],
            checksums=[known for shard in parts for known in shard.checksums],
            home=LocalHome(folder.path.absolute(), has_index=True) if folder.path else None,
            ties=reduce(Ties.joined, (shard.ties for shard in parts), Ties()),
            stale=[*dict.fromkeys(key for shard in parts for key in shard.stale)],
        )
        stack.pop_all()
        return checkpoint


def _read_index(index: ByteSource) -> tuple[dict[str, str], dict[str, str]]:
    """Tensor → shard, and the metadata."""
    try:
        content = parse_object(index.whole(INDEX_MOST))
        places = content.get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ValueError("has no weight_map")
        for name, shard in places.items():
            if not isinstance(shard, str) or not is_plain_name(shard):
                raise ValueError(f"puts {name!r} into {repr(shard)[:80]}, which is not a plain file name")
    except ValueError as error:
        raise FormatError(f"{index.name} is not a sound index of shards", remedy=f"it {error}") from None
    return places, strings(content.get("metadata"))


def _shard(index: ByteSource, name: str, folder: Folder) -> Checkpoint:
    if not folder.holds(name):
        fault = f"{index.name} lists the shard {name!r}, which is not there"
        raise FormatError(fault, remedy="fetch the missing file")
    if name.endswith(INDEX):
        fault = f"{os.path.join(folder.name, name)} is an index, not a shard"
        raise FormatError(fault, remedy="the index that lists it is damaged")
    return open_file(folder.open(name), folder)


def _tensor(index: ByteSource, shard: Checkpoint, name: str, file: str) -> Tensor:
    if name not in shard:
        fault = f"tensor {name!r} is not in its shard {file!r}"
        raise FormatError(f"{index.name} and its shards disagree", remedy=fault)
    return Tensor(name, shard[name].shape, shard[name].dtype, shard[name].source)


def _check_listed(index: ByteSource, places: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> None:
    for file, name in ((file, name) for file, shard in shards.items() for name in shard):
        listed = places.get(name)
        if listed != file:
            where = "absent from the index" if listed is None else f"listed for {listed!r}"
            fault = f"tensor {name!r} is in {file!r} but {where}"
            raise FormatError(f"{index.name} and its shards disagree", remedy=fault)


def write_sharded(entries: Iterable[Entry], target: Target) -> None:
    """Write shards beside the index and the index last; a file is whole or not there.

    Raises `FileError` when a file of one of these names exists: no set of files can be replaced at once, and some
    of the new among the old would open as if nothing were wrong. Shards written before a failure are taken away.
    """
    index, parts = target.path, list(_parts(entries, target.shard_size))
    stem = index.name.removesuffix(INDEX).removesuffix(".safetensors")
    names = [f"{stem}-{at:05}-of-{len(parts):05}.safetensors" for at in range(1, len(parts) + 1)]
    for name in (index.name, *names):
        if os.path.lexists(index.parent / name):
            fault = f"{index.parent / name} exists already"
            raise FileError(fault, remedy="shards replace nothing: write elsewhere")
    with ExitStack() as undo:
        for name, part in zip(names, parts, strict=True):
            write_safetensors(part, target.at(index.parent / name))
            undo.callback((index.parent / name).unlink, missing_ok=True)
        write_index(index, dict(zip(names, parts, strict=True)), target.metadata)
        undo.pop_all()


def write_index(index: Path, shards: Mapping[str, Iterable[Entry]], metadata: Mapping[str, str]) -> None:
    """Write the file that lists which shard holds what."""
    places = {entry.name: name for name, part in shards.items() for entry in part}
    total = sum(entry.nbytes for part in shards.values() for entry in part)
    listing = {"metadata": {**metadata, "total_size": total}, "weight_map": places}
    write_text(index, json.dumps(listing, indent=2) + "\n", force=False)


def write_sharded_folder(entries: Iterable[Entry], target: Target) -> None:
    """Write a new folder of shards and the `others` that go with them; it appears whole or not at all. Raises
    `FileError` when it exists."""
    with new_folder(target.path) as beside:
        take_along(target.others, beside)
        write_sharded(entries, target.at(beside / DEFAULT_INDEX, target.metadata))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `folder` when the block ends well, and else leaves no trace.

    Raises `FileError` when something of that name exists, `force` or not: nobody's folder is replaced.
    """
    refuse_elsewhere(folder)
    if os.path.lexists(folder):
        raise FileError(f"{folder} exists already", remedy="name a folder that does not exist yet")
    beside = folder.parent / f".{folder.name[:60]}.{os.urandom(4).hex()}.part"
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


def _parts(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
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


FORMAT = Format("sharded", open_sharded, claims=lambda head, source: source.name.endswith(INDEX), inside=_inside,
                suffixes=(INDEX,), write=write_sharded)  # fmt: skip
