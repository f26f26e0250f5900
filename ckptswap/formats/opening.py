"""A file or a folder as a checkpoint: every registered format is asked whether it is its own. Which one it is, is
told by the content, not by the name; but where a format promises something by a name, the file has to be of it."""

import os
import re
from itertools import islice
from pathlib import Path

from ckptswap import registry
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import SIGN, with_key
from ckptswap.errors import FileError, FormatError, listing
from ckptswap.formats.format import INDEX, CheckpointSource, Format
from ckptswap.storage import ByteSource, Folder, LocalFolder, kept
from ckptswap.wrappers import common_prefix

FOLDERS_MOST = 100  # that are looked into for what somebody may have meant
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.]*-[\w.-]+")
HEAD = 512  # bytes of a file by which its format is told


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily, whatever its format; nothing in it is ever executed, and each file is opened once.
    `NAME:…` is what is registered by that name (`peft:ADAPTER`), and `FILE::KEY` the map under a key of a torch
    file (`gan.pt::g_ema`; dots go into what a key holds), where there is no such file.

    Raises `FileError` when the path leads nowhere and `FormatError` when the content is damaged, hostile or
    of no format we know. Close it, or use it in a `with`.
    """
    if (asked := _asked_by_name(os.fspath(path))) is not None:
        source, rest = asked
        return source.open(rest)
    file, key = split_key(os.fspath(path))
    place = Path(file)
    if (scheme := os.fspath(path).partition("://"))[1] and not os.path.lexists(place):
        raise FileError(f"nothing is read from {scheme[0]}", remedy="name a path, https://…, hf://… or s3://…")
    if (of_hub := _of_hub(place)) and not os.path.lexists(place):
        raise FileError(f"{place} does not exist", remedy=of_hub)
    if os.path.isdir(place):
        return open_in(LocalFolder(place), key=key)
    return open_in(LocalFolder(place.parent), place.name, key)


def split_key(path: str) -> tuple[str, str | None]:
    """A path, and the key behind `::`; None where there is none. A file may have that in its own name.

    >>> split_key("gan.pt::g_ema"), split_key("gan.pt")
    (('gan.pt', 'g_ema'), ('gan.pt', None))
    """
    if SIGN not in path or os.path.lexists(path):
        return path, None
    parts = path.split(SIGN)
    ways = [(SIGN.join(parts[:at]), SIGN.join(parts[at:])) for at in range(1, len(parts))]
    return next((way for way in reversed(ways) if os.path.lexists(way[0])), ways[0])


def _of_hub(path: Path) -> str:
    """What fetches a model of Hugging Face's hub, where a name is like one's and like no file's; '' elsewhere.

    >>> _of_hub(Path("org/bert-tiny")), _of_hub(Path("nets/a-b.pt")), _of_hub(Path("segment"))
    ('write hf://org/bert-tiny, or fetch it: `hf download org/bert-tiny --local-dir bert-tiny`', '', '')
    """
    is_there = bool(path.parent.name) and path.parent.is_dir()
    if is_there or path.suffix[1:].isalpha() or not _HUB_NAME.fullmatch(str(path)):
        return ""
    way = f"write hf://{path}, or fetch it" if path.parent.name else "fetch it"
    return f"{way}: `hf download {path} --local-dir {path.name}`"


def absolute(path: str) -> str:
    """What leads to the same checkpoint from any folder.

    >>> absolute("/nets/a.pt"), absolute("peft:/nets/adapter"), absolute("/nets/a.pt::g/ema")
    ('/nets/a.pt', 'peft:/nets/adapter', '/nets/a.pt::g/ema')
    """
    if (asked := _asked_by_name(path)) is not None:
        return f"{path.partition(':')[0]}:{asked[0].absolute(asked[1])}"
    file, key = split_key(path)
    return with_key(os.path.abspath(file), key)


def _asked_by_name(path: str) -> tuple[CheckpointSource, str] | None:
    """The source that `NAME:rest` asks for, and the rest; None for a path."""
    word, colon, rest = path.partition(":")
    if not colon or rest.startswith(":") or not registry.is_ours("checkpoints", word) or os.path.exists(path):
        return None
    return registry.find("checkpoints", word), rest


def open_in(folder: Folder, name: str | None = None, key: str | None = None) -> Checkpoint:
    """The same for a file in any folder, or for the folder itself; `key` is that of one of a file's maps.

    >>> import io, numpy as np
    >>> from ckptswap.storage import MemoryFolder
    >>> np.savez(file := io.BytesIO(), w=np.arange(3.0))
    >>> open_in(MemoryFolder({"a.npz": file.getvalue()}), "a.npz").read("w").tolist()
    [0.0, 1.0, 2.0]
    """
    checkpoint = _open_folder(folder, key) if name is None else open_file(folder.open(name), folder, key)
    if prefix := common_prefix(checkpoint):
        checkpoint.notes = (*checkpoint.notes, f"every name begins with {prefix!r}")
    return checkpoint


def _open_folder(folder: Folder, key: str | None) -> Checkpoint:
    for known in registry.every("formats"):
        if (name := known.inside(folder)) is not None:
            source = folder.open(name)
            with kept(source):
                return known.opened(source, folder, key)
    from ckptswap.formats.foreign import refuse_foreign_folder

    refuse_foreign_folder(folder.name, folder.names())
    inside = [name for name in folder.names() if any(known.is_named(name) for known in registry.every("formats"))]
    names = [name for name in inside if name.endswith(INDEX)] or inside
    below = [] if names else _below(folder)
    remedy = f"name one of {listing(names or below)}" if names or below else "name the checkpoint file itself"
    raise FileError(f"{folder.name} is a folder, and not of a form that we read", remedy=remedy)


def _below(folder: Folder) -> list[str]:
    """What is named like a checkpoint in the folders of a folder, as it is typed; of many folders the first."""
    if not isinstance(folder, LocalFolder):
        return []
    there = (
        os.path.join(place, name)
        for place, _, names in islice(os.walk(folder.path), FOLDERS_MOST)
        for name in sorted(names)
        if any(known.is_named(name) for known in registry.every("formats"))
    )
    return sorted(there)


def open_file(source: ByteSource, folder: Folder, key: str | None = None) -> Checkpoint:
    """One file, or the index of several; the source is closed where that fails."""
    with kept(source):
        if not (head := source.pread(HEAD, 0)):
            raise FormatError(f"{source.name} is empty", remedy="it was perhaps never written to its end")
        for known in registry.every("formats"):
            if known.claims(head, source):
                # A name that promises safetensors promises a file without code; for others nobody need be asked.
                is_plain = not known.what or known.promised or known.is_named(source.name)
                promised = None if is_plain else _promised(source.name)
                if promised:
                    fault = f"{source.name} is {known.what}, not a {promised.name} file"
                    raise FormatError(fault, remedy="if you want it all the same, rename it")
                return known.opened(source, folder, key)
        # Looking into old pickles takes code that only files of torch need: it is imported when nothing else fits.
        from ckptswap.formats.foreign import refuse_foreign

        refuse_foreign(source.name, head)
        if promised := _promised(source.name):
            return promised.open(source, folder)  # which says what is wrong with it
        fault = f"{source.name} is not a checkpoint that we can read"
        raise FormatError(fault, remedy=f"it is none of {', '.join(_kinds())}")


def _kinds() -> list[str]:
    """The names of the formats that are told by a file's content."""
    return list(dict.fromkeys(known.name for known in registry.every("formats") if known.suffixes))


def _promised(name: str) -> Format | None:
    """The format of which a file of this name has to be."""
    return next((known for known in registry.every("formats") if known.promised and known.is_named(name)), None)
