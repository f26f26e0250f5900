"""Plain pickles of numpy arrays, as model zoos publish them (`.pkl`); nothing in them is built or run."""

import io

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError
from ckptswap.formats import torch_legacy
from ckptswap.formats.arrays import no_storages
from ckptswap.formats.format import Format
from ckptswap.formats.pickles import read_pickle
from ckptswap.formats.torch_pickle import NAMES
from ckptswap.formats.torch_tensors import checkpoint_of
from ckptswap.storage import ByteSource, Folder

MOST = 1 << 30  # bytes: the arrays are read with the pickle


def open_pickle(file: ByteSource, folder: Folder | None = None, key: str | None = None) -> Checkpoint:
    """Open one; its arrays are read at once, and `key` is that of one of several maps. Raises `FormatError` for what
    is damaged, hostile, too long or holds no arrays."""
    if file.size > MOST:
        fault = f"{file.name} is a plain pickle of {file.size:,} B, and has to be read at once"
        raise FormatError(fault, remedy=f"{MOST:,} B are the most: where you trust it, save its arrays with np.savez")
    content = read_pickle(io.BytesIO(file.pread(file.size, 0)), NAMES, where=file.name, unknown=True)
    return checkpoint_of(content, no_storages, file, FORMAT.name, key)


FORMAT = Format("pickle", open_pickle, what="a plain pickle", claims=torch_legacy.is_plain, open_at=open_pickle)
