"""Files of `torch.save` since torch 1.6: a zip archive of a pickle and of each storage's bytes, stored."""

from __future__ import annotations

import io
import json
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError
from ckptswap.formats.archive import Archive
from ckptswap.formats.pickles import INSTRUCTIONS_MOST, PICKLE_MOST, read_pickle
from ckptswap.formats.torch_beside import refuse_faulty
from ckptswap.formats.torch_pickle import NAMES, Locate, Place, Storage, Storages, beside, find_tensors
from ckptswap.storage import LocalFile

FORMAT = "torch"
METADATA = "ckptswap/metadata.json"
"""A member beside the pickle, which torch skips: metadata has no other room in a plain state dict."""
METADATA_MOST = 8 << 20
"""Bytes of that member."""
INSTRUCTIONS_A_RECORD = 64
"""How many more instructions a pickle may have for each record beside it: what a tensor takes, and then some."""
NO_CRC = 0
"""What torch records when it was told not to compute checksums."""


def open_torch_zip(archive: Archive, file: LocalFile) -> Checkpoint:
    """Open lazily: only the pickle is read. Raises `FormatError` for what is damaged, hostile, or TorchScript."""
    content, locate = read_content(archive)
    found = find_tensors(content, locate, file.name)
    refuse_faulty(content, locate, file.name)
    return Checkpoint(
        found.tensors,
        path=file.name,
        format=FORMAT,
        metadata=_metadata(archive),
        notes=found.notes,
        unread=found.unread,
        files=[Path(file.name)],
        close=file.close,
        ties=found.ties,
        beside=beside(content),
    )


def read_content(archive: Archive, instructions: int | None = None) -> tuple[object, Locate]:
    """What an archive's pickle holds, inert, and where its storages lie. The pickle has at most so many
    instructions (by default some for each record)."""
    prefix = prefix_of(archive)
    counted = INSTRUCTIONS_MOST + INSTRUCTIONS_A_RECORD * len(archive.members)
    most = counted if instructions is None else instructions
    return _content(archive, prefix, most), _locator(archive, prefix)


def prefix_of(archive: Archive) -> str:
    """The folder inside the archive; its name is the writer's choice."""
    where = archive.file.name
    found = [name.removesuffix("/data.pkl") for name in archive.members if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise FormatError(f"{where} is no sound torch file", remedy=f"it has {len(found) or 'no'} data.pkl")
    prefix = found[0]
    if f"{prefix}/constants.pkl" in archive or any(name.startswith(f"{prefix}/code/") for name in archive.members):
        raise FormatError(
            f"{where} is a TorchScript archive, which holds code",
            remedy="where you trust it, save `torch.jit.load(FILE).state_dict()` with torch.save",
        )
    for name in archive.members:  # whoever copies the file, or checks it, would unpack what may be very large
        archive.stored(name)
    order = f"{prefix}/byteorder"
    if order in archive and archive.read(order, 16, ignore_crc=NO_CRC) != b"little":
        raise FormatError(f"{where} was saved big-endian", remedy="save it again on a little-endian machine")
    return prefix


def _content(archive: Archive, prefix: str, instructions: int) -> object:
    raw = archive.read(f"{prefix}/data.pkl", PICKLE_MOST, ignore_crc=NO_CRC)
    return read_pickle(io.BytesIO(raw), NAMES, Storages(), where=archive.file.name, most=instructions)


def _locator(archive: Archive, prefix: str) -> Locate:
    def locate(storage: Storage) -> Place:
        member = archive.stored(f"{prefix}/data/{storage.key}")
        return Place(archive.file, member.offset, member.size)

    return locate


def _metadata(archive: Archive) -> dict[str, str]:
    name = f"{prefix_of(archive)}/{METADATA}"
    if name not in archive:
        return {}
    try:
        found = json.loads(archive.read(name, METADATA_MOST))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{archive.file.name} is damaged", remedy=f"its {name} is not JSON") from error
    return (
        {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    )
