"""Files of `torch.save` since torch 1.6: a zip archive of a pickle and of each storage's bytes, stored.

They are written streaming and without torch; `torch.load(path, weights_only=True, mmap=True)` reads them. Metadata
goes into a member that torch skips.
"""

import io
import json
import struct
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import FormatError
from ckptswap.formats.archive import ZIP_MAGIC, Archive, ZipChecksums, add_bytes, add_member
from ckptswap.formats.format import Format
from ckptswap.formats.inert import Build
from ckptswap.formats.objects import strings
from ckptswap.formats.pickles import INSTRUCTIONS_MOST, PICKLE_MOST, read_pickle
from ckptswap.formats.strided import contiguous
from ckptswap.formats.target import Target
from ckptswap.formats.torch_pickle import DTYPES, NAMES, STORAGES, Locate, Storage, Storages, Stretch
from ckptswap.formats.torch_tensors import SUFFIXES, checkpoint_of
from ckptswap.storage import ByteSource, Folder

METADATA = "ckptswap/metadata.json"
"""A member beside the pickle, which torch skips: metadata has no other room in a plain state dict."""
METADATA_MOST = 8 << 20  # bytes of that member
INSTRUCTIONS_A_RECORD = 64
"""How many more instructions a pickle may have for each record beside it: what a tensor takes, and then some."""
NO_CRC = 0  # what torch records when it was told not to compute checksums
PREFIX = "archive"
_OTHERS = {
    "/model.json": ("TorchScript of torch 1.0 to 1.2",
                    "where you trust it, load it with `torch.jit.load` and save it again"),
    "/.data/extern_modules": ("an archive of torch.package, which holds code and pickles of any kind",
                              "where you trust it, save the `state_dict()` of what it holds"),
}  # fmt: skip
"""Members by which archives are told that have no data.pkl."""
_STORAGE_OF = {dtype: name for name, dtype in reversed(list(STORAGES.items()))}
_NAME_OF = {dtype: name for name, dtype in DTYPES.items()}
_EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def open_torch_zip(file: ByteSource, folder: Folder | None = None, key: str | None = None) -> Checkpoint:
    """Open lazily: only the pickle is read; `key` is that of one of several maps. Raises `FormatError` for what is
    damaged or hostile."""
    archive = Archive(file)
    content, locate = read_content(archive)
    return checkpoint_of(content, locate, file, FORMAT.name, key, metadata=metadata_of(archive),
                         checksums=[ZipChecksums([file])])  # fmt: skip


def read_content(archive: Archive, instructions: int | None = None) -> tuple[object, Locate]:
    """What an archive's pickle holds, inert, and where its storages lie. The pickle has at most so many
    instructions (by default some for each record)."""
    for name in archive.members:  # whoever copies the file, or checks it, would unpack what may be very large
        archive.stored(name)
    return read_part(archive, "data", NAMES, instructions), storages_of(archive)


def read_part(archive: Archive, part: str, names: Mapping[str, Build], instructions: int | None = None) -> Any:
    """What one pickle of an archive holds, inert, by what stands for the globals that it asks for."""
    most = instructions or INSTRUCTIONS_MOST + INSTRUCTIONS_A_RECORD * len(archive.members)
    raw = archive.read(f"{prefix_of(archive)}/{part}.pkl", PICKLE_MOST, ignore_crc=NO_CRC)
    storages = Storages(f"{part}/")
    return read_pickle(io.BytesIO(raw), names, storages, where=archive.file.name, most=most, unknown=True)


def storages_of(archive: Archive) -> Locate:
    """Where an archive's storages lie."""
    prefix = prefix_of(archive)

    def locate(storage: Storage) -> Stretch:
        member = archive.stored(f"{prefix}/{storage.key}")
        return Stretch(*archive.place(member.name), member.size)

    return locate


def prefix_of(archive: Archive) -> str:
    """The folder inside the archive; its name is the writer's choice."""
    where = archive.file.name
    folders = [name.removesuffix("/data.pkl") for name in archive.members if name.endswith("/data.pkl")]
    if len(folders) != 1:
        for name, (what, remedy) in _OTHERS.items():
            if not folders and any(member.endswith(name) for member in archive.members):
                raise FormatError(f"{where} is {what}", remedy=remedy)
        raise FormatError(f"{where} is not a sound torch file", remedy=f"it has {len(folders) or 'no'} data.pkl")
    [prefix] = folders
    order = f"{prefix}/byteorder"
    if order in archive and archive.read(order, 16, ignore_crc=NO_CRC) != b"little":
        raise FormatError(f"{where} was saved big-endian", remedy="save it again on a little-endian machine")
    return prefix


def metadata_of(archive: Archive) -> dict[str, str]:
    """What an archive that we wrote says of itself. Raises `FormatError`."""
    name = f"{prefix_of(archive)}/{METADATA}"
    if name not in archive:
        return {}
    try:
        return strings(json.loads(archive.read(name, METADATA_MOST)))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{archive.file.name} is damaged", remedy=f"its {name} is not JSON") from error


def write_torch(entries: Iterable[Entry], target: Target) -> None:
    """Stream entries into a new file, atomically. Raises `FormatError` for a dtype that torch lacks."""
    listed = list(entries)
    items = (_text(entry.name) + _tensor(entry, str(at), target.path) for at, entry in enumerate(listed))
    content = b"\x80\x02" + _EMPTY_ORDERED_DICT + b"(" + b"".join(items) + b"u."  # protocol 2
    small = {"data.pkl": content, "byteorder": b"little", "version": b"3\n"}
    if target.metadata:
        small[METADATA] = json.dumps(dict(target.metadata)).encode("ascii")
    with target.file() as file, zipfile.ZipFile(file, "w") as archive:
        for name, raw in small.items():
            add_bytes(archive, f"{PREFIX}/{name}", raw)
        for at, entry in enumerate(listed):
            add_member(archive, f"{PREFIX}/data/{at}", entry.nbytes, partial(target.stream, entry))


def _tensor(entry: Entry, key: str, path: Path) -> bytes:
    if entry.dtype not in _NAME_OF:
        raise FormatError(f"{path} cannot hold {entry.name!r}", remedy=f"torch files have no {entry.dtype}")
    typed = entry.dtype in _STORAGE_OF
    storage = f"torch\n{_STORAGE_OF[entry.dtype]}Storage" if typed else "torch.storage\nUntypedStorage"
    identity = (b"(" + _text("storage") + f"c{storage}\n".encode() + _text(key) + _text("cpu")
                + _integer(entry.numel if typed else entry.nbytes) + b"tQ")  # fmt: skip
    view = _integer(0) + _integers(entry.shape) + _integers(contiguous(entry.shape, 1))
    dtype = b"" if typed else f"ctorch\n{_NAME_OF[entry.dtype]}\n".encode()
    rebuild = b"ctorch._utils\n_rebuild_tensor_v" + (b"2" if typed else b"3") + b"\n"
    return rebuild + b"(" + identity + view + b"\x89" + _EMPTY_ORDERED_DICT + dtype + b"tR"


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _integers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


FORMAT = Format("torch", open_torch_zip, what="a zip archive, as torch and numpy write them", suffixes=SUFFIXES,
                claims=lambda head, source: head.startswith(ZIP_MAGIC), write=write_torch,
                open_at=open_torch_zip)  # fmt: skip
