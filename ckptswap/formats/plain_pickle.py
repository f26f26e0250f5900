"""Plain pickles of arrays or tensors, as model zoos publish them (`.pkl`); nothing in them is built or run."""

import io
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError
from ckptswap.formats import torch_legacy
from ckptswap.formats.arrays import Held, bytes_of, no_storages
from ckptswap.formats.format import Format
from ckptswap.formats.pickles import Build, read_pickle
from ckptswap.formats.torch_pickle import NAMES, Storage
from ckptswap.formats.torch_tensors import checkpoint_of
from ckptswap.storage import ByteSource, Folder, MemoryFile

_FROM_BYTES = "torch.storage._load_from_bytes"
MOST = 1 << 30  # bytes: the arrays are read with the pickle


def open_pickle(file: ByteSource, folder: Folder | None = None, key: str | None = None) -> Checkpoint:
    """Open one; its arrays are read at once, and `key` is that of one of several maps. Raises `FormatError` for
    what is damaged, hostile, too long or holds no arrays."""
    try:
        raw = file.whole(MOST)
    except ValueError as error:
        fault = f"{file.name} is a plain pickle, which is read at once, and {error}"
        raise FormatError(fault, remedy="where you trust it, save its arrays with np.savez") from None
    names = {**NAMES, _FROM_BYTES: _storages(file.name)}
    content = read_pickle(io.BytesIO(raw), names, where=file.name, unknown=True)
    return checkpoint_of(content, no_storages, file, FORMAT.name, key)


def _storages(where: str) -> Build:
    """What reads a storage that `pickle.dump` has torch save into bytes; the same bytes are read once."""
    known: dict[int, Held] = {}

    def load(arguments: tuple[Any, ...]) -> Held:
        [raw] = arguments
        if id(raw) not in known:
            known[id(raw)] = _storage(bytes_of(raw), where, len(known))
        return known[id(raw)]

    return load


def _storage(raw: Any, where: str, at: int) -> Held:
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("a storage is read from what is not bytes")
    storage, locate = torch_legacy.read_content(MemoryFile(memoryview(raw), where))
    if not isinstance(storage, Storage):
        raise ValueError("a storage is read from bytes that hold none")
    stretch = locate(storage)
    return Held(f"bytes {at}", storage.dtype, storage.numel, raw=stretch.file.pread(stretch.size, stretch.offset))


FORMAT = Format("pickle", open_pickle, what="a plain pickle", claims=torch_legacy.is_plain, open_at=open_pickle)
