"""`npz:FILE`: arrays of all samples, in a file that numpy's `savez` wrote.

Targets are `targets`, `labels`, `masks` or `y`, groups `groups`; every other array is an input: one alone is the
model's only one, several are its arguments by name. The first dimension are samples. Images of uint8 or uint16 are
scaled to 0…1 and put channels first, as those of a folder; everything else stays as it is.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckptswap.errors import DataError
from ckptswap.task.data.request import DataRequest, refuse_unknown

TARGETS = ("targets", "labels", "masks", "y")
GROUPS = "groups"
_SCALE = {"uint8": 255, "uint16": 65535}


class Arrays:
    """Items are (input, target[, group]); the target is None where the file has none, and none is needed."""

    def __init__(self, path: Path, *, needs_target: bool) -> None:
        try:
            with np.load(path, allow_pickle=False) as content:
                self._arrays = {name: content[name] for name in content.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read ({error})", remedy="write it with numpy.savez") from None
        counts = {name: len(array) if array.ndim else 0 for name, array in self._arrays.items()}
        if not counts or len(set(counts.values())) > 1:
            raise DataError(f"{path} has {counts or 'no arrays'}", remedy="give as many samples of each")
        self._target = next((name for name in TARGETS if name in counts), None)
        self._inputs = [name for name in counts if name not in (self._target, GROUPS)]
        if not self._inputs:
            raise DataError(f"{path} holds no inputs, only {', '.join(counts)}", remedy="add an array `inputs`")
        if needs_target and self._target is None:
            remedy = (
                f"add an array {', '.join(TARGETS[:-1])} or {TARGETS[-1]}; kl, agreement and output-mse need none"
            )
            raise DataError(f"{path} holds no targets, only {', '.join(counts)}", remedy=remedy)
        if GROUPS in counts and (self._arrays[GROUPS].ndim != 1 or self._arrays[GROUPS].dtype.kind not in "iubUS"):
            raise DataError(f"the groups of {path} are not one number or text a sample", remedy="give one of each")
        self._count = next(iter(counts.values()))
        self.targets, self.groups = (self._arrays.get(name or "") for name in (self._target, GROUPS))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> tuple[Any, ...]:
        named = {name: _tensor(self._arrays[name][at]) for name in self._inputs}
        inputs = named[self._inputs[0]] if len(named) == 1 else named
        target = None if self._target is None else torch.from_numpy(np.asarray(self._arrays[self._target][at]))
        return (inputs, target, self._arrays[GROUPS][at].item()) if GROUPS in self._arrays else (inputs, target)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """One sample of an input."""
    if array.dtype.name not in _SCALE or array.ndim < 2:
        return torch.from_numpy(np.array(array))
    array = array[None] if array.ndim == 2 else array
    array = array.transpose(2, 0, 1) if array.ndim == 3 and array.shape[-1] in (1, 3) else array
    return torch.from_numpy(array.astype(np.float32, order="C") / np.float32(_SCALE[array.dtype.name]))


def built(place: str, args: Mapping[str, Any], request: DataRequest) -> Arrays:
    """Open the arrays of a file. Raises `DataError` for what cannot be read, or lacks targets that are needed."""
    refuse_unknown(args, (), f"npz:{place}")
    return Arrays(Path(place), needs_target=request.spec.target != "input")
