"""Writing `.npz` as `numpy.savez` would, streaming; the metadata is the archive's comment, which numpy skips."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from ckptswap import dtypes
from ckptswap.checkpoint import Entry
from ckptswap.errors import FormatError
from ckptswap.formats.atomic import atomic_file
from ckptswap.formats.npz import MAGIC
from ckptswap.formats.streaming import Watch, stream, unwatched
from ckptswap.formats.zip_writer import ALIGNMENT, add_member

COMMENT_MOST = 65_535


def write_npz(
    entries: Iterable[Entry],
    path: Path,
    *,
    metadata: Mapping[str, str],
    force: bool = False,
    made_of: Iterable[Path] = (),
    watch: Watch = unwatched,
) -> None:
    """Stream entries into a new file, atomically.

    Raises `FormatError` for a dtype that numpy lacks (bf16, fp8), a name that no zip archive can hold, and
    metadata for which there is no room.
    """
    listed = list(entries)
    headers = {entry.name: _header(entry, path) for entry in listed}
    comment = json.dumps(dict(metadata)).encode("ascii") if metadata else b""
    if len(comment) > COMMENT_MOST:
        raise FormatError(f"{path} has no room for {len(comment):,} bytes of metadata",
                          remedy="write .safetensors instead")  # fmt: skip
    with atomic_file(path, force=force, made_of=made_of) as file, zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment
        for entry in listed:
            _add(archive, entry, headers[entry.name], watch)


def _add(archive: zipfile.ZipFile, entry: Entry, header: bytes, watch: Watch) -> None:
    def fill(out: BinaryIO) -> None:
        out.write(header)
        stream(entry, out, watch)

    add_member(archive, f"{entry.name}.npy", len(header) + entry.nbytes, fill)


def _header(entry: Entry, path: Path) -> bytes:
    if not dtypes.is_plain(entry.dtype):
        raise FormatError(f"{path} cannot hold {entry.name!r}", remedy=f"numpy has no {entry.dtype}")
    if "\x00" in entry.name or not _fits_zip(entry.name):
        raise FormatError(f"{path} cannot hold {entry.name!r:.80}", remedy="a zip archive has no such name")
    descr = dtypes.to_numpy(entry.dtype).str
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {entry.shape!r}, }}"
    room = -(len(MAGIC) + 4 + len(text) + 1) % ALIGNMENT
    return MAGIC + b"\x01\x00" + (len(text) + room + 1).to_bytes(2, "little") + f"{text}{' ' * room}\n".encode()


def _fits_zip(name: str) -> bool:
    try:
        return len(name.encode("utf-8")) <= 65_000
    except UnicodeEncodeError:
        return False
