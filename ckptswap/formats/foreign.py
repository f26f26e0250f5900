"""Files that are not checkpoints, named for what they are."""

import io
import os
import re
from collections.abc import Container

from ckptswap.errors import FormatError
from ckptswap.formats.inert import ForbiddenPickleError
from ckptswap.formats.pickles import read_pickle
from ckptswap.formats.torch_pickle import NAMES

_TAR_MAGIC = slice(257, 262)
_TFLITE = slice(4, 8)
_JOBLIB = "where you trust it, `joblib.load` it, and save its arrays with np.savez"
_SAVED_MODEL = "its values are `tf.saved_model.load(FOLDER).variables`: np.savez them by their names"
_COMPILED = "its values are folded into a graph for one runtime: take the checkpoint that it was made from"
_BEGINNINGS = {
    b"version https://git-lfs": ("a git-lfs pointer, not the file itself", "run `git lfs pull`"),
    b"\x93NUMPY": ("a single numpy array", "put it into an .npz, where it has a name"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it first"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it first"),
    b"PK\x05\x06": ("an empty zip archive", "it holds no tensors"),
    b"\x04\x22\x4d\x18": ("compressed with lz4, as joblib does it", _JOBLIB),
    b"BZh": ("compressed with bzip2", "unpack it first"),
    b"\xfd7zXZ\x00": ("compressed with xz", "unpack it first"),
    b"\xba\x16\x4f\x2f": (
        "a model of fastText",
        "`fasttext.load_model(FILE).get_input_matrix()` gives its vectors; np.savez them",
    ),
}
_OLD_PICKLES = (b"(dp", b"(lp", b"}q\x00", b"]q\x00", b"ccollections\n", b"cnumpy")
_ENDINGS = {
    "saved_model.pb": ("the graph of a TensorFlow SavedModel", _SAVED_MODEL),
    ".mlmodel": ("a Core ML model", _COMPILED),
    "weights_manifest.json": (
        "the list of a TensorFlow.js model's weights",
        "`tensorflowjs.read_weights.read_weights` gives them as arrays; np.savez these",
    ),
}
"""What a file is whose content nobody told, and whose name does."""
_FOLDERS = {
    "saved_model.pb": ("a SavedModel of TensorFlow", _SAVED_MODEL),
    "Manifest.json": ("a Core ML package", _COMPILED),
}
_SHARD = re.compile(r"(?:\.index|\.data-\d{5}-of-\d{5})$")  # of TensorFlow


def refuse_foreign_folder(name: str, files: Container[str]) -> None:
    """Raises `FormatError` when the names in a folder tell what it is; returns when they do not."""
    for file, (what, remedy) in _FOLDERS.items():
        if file in files and (file != "Manifest.json" or name.endswith(".mlpackage")):
            raise FormatError(f"{name} is {what}", remedy=remedy)


def refuse_foreign(name: str, head: bytes) -> None:
    """Raises `FormatError` when the first bytes of a file tell what it is; returns when they do not."""
    for beginning, (what, remedy) in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise FormatError(f"{name} is {what}", remedy=remedy)
    if head[_TFLITE] == b"TFL3":
        raise FormatError(f"{name} is a TensorFlow Lite model", remedy=_COMPILED)
    if head[_TAR_MAGIC] == b"ustar":
        raise FormatError(f"{name} is a tar archive (torch wrote such files before 0.1.10)",
                          remedy="where you trust it, load it with an old torch and save it again")  # fmt: skip
    try:  # a pickle of protocol 0 or 1 looks like text or noise; it is named by what it asks for
        read_pickle(io.BytesIO(head), NAMES, where=name)
    except ForbiddenPickleError:  # noise may well hold the number of an extension, but not the name of a global
        raise
    except FormatError:
        pass
    if head.startswith(_OLD_PICKLES):
        raise FormatError(f"{name} is a pickle of protocol 0 or 1, Python 2's, which we do not read",
                          remedy="where you trust it, load it and save its arrays with np.savez")  # fmt: skip
    _refuse_named(name)
    text = head.decode("utf-8", errors="ignore").strip()
    if text and "\x00" not in text and len(text.encode()) >= len(head.strip()) - 3:
        what = "a web page" if text[:1] == "<" and "html" in text.lower() else "text"
        is_config = name.endswith((".json", ".yaml", ".yml")) and what == "text"
        remedy = "is this the address of the file itself?" if "://" in name else "was it downloaded whole?"
        if is_config:
            remedy = f"name its folder, {os.path.dirname(name) or '.'}, or the file of weights beside it"
        raise FormatError(f"{name} is {what}, beginning {text[:30]!r}", remedy=remedy)


def _refuse_named(name: str) -> None:
    for ending, (what, remedy) in _ENDINGS.items():
        if name.endswith(ending):
            raise FormatError(f"{name} is {what}", remedy=remedy)
    if part := _SHARD.search(name):
        reader = f"tf.train.load_checkpoint({os.path.basename(name[: part.start()])!r})"
        remedy = f"np.savez what `{reader}` gives by `get_tensor`"
        raise FormatError(f"{name} is a part of a TensorFlow checkpoint", remedy=remedy)
