"""Donors that are no file: the recipient with its values replaced, or the model as its own initialiser makes it.

Sources: Zhang, Bengio & Singer, Are All Layers Created Equal? (arXiv:1902.01996: re-initialise, re-randomise);
Chatterji, Neyshabur & Sedghi, The intriguing role of module criticality (arXiv:1912.00528: rewind).
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, sha256_of
from ckptswap.errors import MismatchError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.task.in_memory import InMemory
from ckptswap.task.spec import TaskSpec

MADE = "made"  # the format of a checkpoint that was made here, whose path is the word that says how
ORIGIN = "ckptswap.init_from"
"""Under this name a trained checkpoint's metadata has the hash of its initialisation's file."""
FORMS = {
    "init": (r"init:(\d{1,18})", "init:SEED"),
    "rewind": ("rewind", "rewind"),
    "zeros": ("zeros", "zeros"),
    "mean": ("mean", "mean"),
    "shuffle": (r"shuffle:(\d{1,18})", "shuffle:SEED"),
    "noise": (r"noise:(\d+(?:\.\d+)?)(?::(\d{1,18}))?", "noise:SHARE or noise:SHARE:SEED"),
}
"""How a word may go on, as a pattern and for people."""


def is_made(text: str) -> bool:
    """Whether a donor's name is one of the words here; a file of such a name is written `./zeros`.

    >>> is_made("shuffle:3"), is_made("zeros"), is_made("./zeros"), is_made("zeros.pt")
    (True, True, False, False)
    """
    return text.partition(":")[0] in FORMS


def is_file(text: str) -> bool:
    """Whether it names a file, be it by `rewind`; the others are made from the recipient, by its names."""
    return not is_made(text) or text == "rewind"


def open_donor(text: str, recipient: Checkpoint, spec: TaskSpec) -> Checkpoint:
    """The donor that a word or a path names.

    `init` is the model freshly initialised, `rewind` the file from which the recipient's training began, `zeros`
    and `mean` hold 0 or each tensor's own mean, `shuffle` its values in another order, `noise` values moved by
    ±SHARE of themselves. What is no float stays the recipient's. Raises `UsageError` for a word that makes no
    sense, and for `init` of a model that is built already, `MismatchError` where `rewind` finds no file,
    `ModelError` where `init` cannot build the model.

    >>> own = Checkpoint.from_arrays({"w": np.array([1.0, 3.0])})
    >>> open_donor("mean", own, TaskSpec()).read("w").tolist()
    [2.0, 2.0]
    """
    if not is_made(text):
        return open_checkpoint(text)
    word = text.partition(":")[0]
    pattern, form = FORMS[word]
    told = re.fullmatch(pattern, text)
    if told is None:
        raise UsageError(f"--from {text} makes no sense", remedy=f"write {form} (or ./{text} for a file)")
    if word == "rewind":
        return _rewound(recipient)
    if word == "init":
        arrays = _initialised(recipient, spec, int(told[1]))
    else:
        arrays = dict(_remade(recipient, word, *told.groups()))
    made = Checkpoint.from_arrays(arrays, metadata=recipient.metadata, path=text)
    made.format = MADE
    return made


def _remade(
    recipient: Checkpoint, word: str, number: str = "", seed: str | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    for name, entry in recipient.items():
        values = recipient.read(name)
        if dtypes.is_float(entry.dtype) and not dtypes.is_packed(entry.dtype):
            if word == "shuffle":
                values = _draw(number, name).permutation(values.reshape(-1)).reshape(values.shape)
            elif word == "noise":  # signs are kept where the share is below 1: a variance stays one
                signs = _draw(seed or "0", name).integers(0, 2, values.shape) * 2 - 1
                values = dtypes.rounded(values.astype(np.float64) * (1 + float(number) * signs), values.dtype)
            elif word == "mean" and values.size:
                mean = dtypes.rounded(values.astype(np.float64).mean(keepdims=True), values.dtype)
                values = np.full_like(values, mean.reshape(()))
            else:
                values = np.full_like(values, 0)
        yield name, values


def _draw(seed: str, name: str) -> np.random.Generator:
    """Random numbers of a tensor's own, whatever else the checkpoint holds."""
    digest = hashlib.sha256(f"{int(seed)} {name}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def _initialised(recipient: Checkpoint, spec: TaskSpec, seed: int) -> dict[str, np.ndarray]:
    """What the model's own initialiser makes, in the recipient's dtypes."""
    import torch

    from ckptswap.task.models.build import build_named

    word = spec.model or (InMemory.of(recipient.module) if recipient.module is not None else None)
    if isinstance(word, InMemory) and word.is_made:
        fault = f"init:{seed} builds the model anew, and {word} is built already"
        raise UsageError(fault, remedy="give what builds it: model=lambda: …")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build_named(recipient, spec.model, spec.model_args).state_dict()
    return {
        name: (value.double() if value.is_floating_point() else value)
        .numpy()
        .astype(dtypes.to_numpy(recipient[name].dtype))
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and name in recipient
    }


def _rewound(recipient: Checkpoint) -> Checkpoint:
    """The file beside the recipient whose hash its metadata names."""
    wanted = recipient.metadata.get(ORIGIN)
    if wanted is None:
        raise MismatchError(
            f"{recipient.path} does not say from which initialisation it was trained",
            remedy="name the file: --from INIT",
        )
    folder = Path(recipient.path).absolute().parent
    for path in sorted(folder.glob("*.safetensors")):
        if sha256_of(path) == wanted:
            return open_checkpoint(path)
    raise MismatchError(
        f"no file in {folder} is the initialisation of {recipient.path} (SHA-256 {wanted[:12]}…)",
        remedy="name it: --from INIT",
    )
