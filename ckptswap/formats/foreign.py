"""Files that are not checkpoints, named for what they are."""

import io
import os

from ckptswap.errors import FormatError
from ckptswap.formats.inert import ForbiddenPickleError
from ckptswap.formats.pickles import read_pickle
from ckptswap.formats.torch_pickle import NAMES

_TAR_MAGIC = slice(257, 262)
_BEGINNINGS = {
    b"version https://git-lfs": ("a git-lfs pointer, not the file itself", "run `git lfs pull`"),
    b"\x93NUMPY": ("a single numpy array", "put it into an .npz, where it has a name"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it first"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it first"),
    b"PK\x05\x06": ("an empty zip archive", "it holds no tensors"),
}


def refuse_foreign(name: str, head: bytes) -> None:
    """Raises `FormatError` when the first bytes of a file tell what it is; returns when they do not."""
    for beginning, (what, remedy) in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise FormatError(f"{name} is {what}", remedy=remedy)
    if head[_TAR_MAGIC] == b"ustar":
        raise FormatError(f"{name} is a tar archive (torch wrote such files before 0.1.10)",
                          remedy="where you trust it, load it with an old torch and save it again")  # fmt: skip
    try:  # a pickle of protocol 0 or 1 looks like text or noise; it is named by what it asks for
        read_pickle(io.BytesIO(head), NAMES, where=name)
    except ForbiddenPickleError:  # noise may well hold the number of an extension, but not the name of a global
        raise
    except FormatError:
        pass
    text = head.decode("utf-8", errors="ignore").strip()
    if text and "\x00" not in text and len(text.encode()) >= len(head.strip()) - 3:
        what = "a web page" if text[:1] == "<" and "html" in text.lower() else "text"
        is_config = name.endswith((".json", ".yaml", ".yml")) and what == "text"
        remedy = "is this the address of the file itself?" if "://" in name else "was it downloaded whole?"
        if is_config:
            remedy = f"name its folder, {os.path.dirname(name) or '.'}, or the file of weights beside it"
        raise FormatError(f"{name} is {what}, beginning {text[:30]!r}", remedy=remedy)
