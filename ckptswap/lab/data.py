"""The demo's data: axial slices of the MNI152 T1 template and its grey-matter mask, both carried in nilearn.

The volume is 197 × 233 × 189 voxels of 1 mm, and the brain lies in slices z = 0 … 154. We take z = 3 … 152 in
fifteen periods of ten slices: 1 train, 2 unused, 3 held out, 2 unused, 2 train. So 45 slices train, 45 in fifteen
blocks of neighbours are held out, and no held-out slice is nearer than 3 mm to a training one. A block is a group.

In plane each slice is halved (image: mean of 2 × 2 voxels; mask: grey where at least 2 of the 4 are) and cut to
96 × 96, anterior up, which divides by 32; the brain is 73 × 91 there, so that none of it is lost. Intensities are
0 … 1, as nilearn scales the template. It is one average brain: its blocks are not subjects.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ckptswap.errors import DataError, DependencyError, FileError, near
from ckptswap.formats.atomic import atomic_file
from ckptswap.task.callables import call

FIRST_SLICE = 3
BLOCKS = 15
PERIOD = "tuuhhhuutt"  # t train, u unused, h held out
SIDE = 96
_PARTS = {"train": "t", "test": "h"}

Item = tuple[Tensor, Tensor, int]


class Slices(Dataset[Item]):
    """Items are (image (1, H, W) float32, mask (H, W) int64, group); all slices are held in memory."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, groups: np.ndarray) -> None:
        self.images, self.masks = torch.from_numpy(images)[:, None], torch.from_numpy(masks)
        self.groups = [int(group) for group in groups]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, at: int) -> Item:
        return self.images[at], self.masks[at], self.groups[at]


def mni(part: str = "test") -> Slices:
    """The training slices (45) or the held-out ones (45, in fifteen groups).

    Raises DataError for another part, DependencyError where nilearn is not installed.
    Source: Fonov et al. 2009, MNI ICBM 152 2009a nonlinear symmetric, as `nilearn.datasets` carries it.

    >>> image, mask, group = mni("test")[0]
    >>> image.shape, mask.shape, group
    (torch.Size([1, 96, 96]), torch.Size([96, 96]), 0)
    """
    if part not in _PARTS:
        raise DataError(f"lab:mni has no part {part!r}", remedy="use part=train or part=test")
    z, groups = split(part)
    images, masks = _volume()
    return Slices(images[z], masks[z], groups)


def split(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Slice numbers z of the volume, and the period (the test block, for `test`) that each belongs to; ascending.

    >>> split("test")[0][:6].tolist()
    [6, 7, 8, 16, 17, 18]
    """
    at = np.flatnonzero(np.array(list(PERIOD * BLOCKS)) == _PARTS[part])
    return at + FIRST_SLICE, at // len(PERIOD)


@functools.lru_cache(maxsize=1)
def _volume() -> tuple[np.ndarray, np.ndarray]:
    """Every axial slice, halved and cut: images (Z, 96, 96) float32, masks (Z, 96, 96) int64; kept in the user's
    cache, since nilearn's import and mask take five seconds."""
    kept, faults = _kept(), (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with contextlib.suppress(*faults), open(kept, "rb") as file:
        slices = np.load(file)
        return slices["images"], slices["masks"].astype(np.int64)
    template, mask = _templates()
    images = _cut(_blocks(template).mean((2, 4))).astype(np.float32)
    masks = _cut(_blocks(mask).sum((2, 4)) >= 2)
    with contextlib.suppress(OSError, FileError):  # a cache that cannot be written only costs time
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(kept) as file:
            np.savez(file, images=images, masks=masks)
    return images, masks.astype(np.int64)


def _kept() -> Path:
    """The file in the cache; its name changes with nilearn's version and with this module's text."""
    try:
        version = importlib.metadata.version("nilearn")
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing() from error
    made_by = hashlib.sha256(f"{version}\n{Path(__file__).read_text('utf-8')}".encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "ckptswap" / f"mni-{made_by}.npz"


def _missing() -> DependencyError:
    return DependencyError("lab:mni needs nilearn", remedy="pip install 'ckptswap[demo]'")


def _templates() -> tuple[np.ndarray, np.ndarray]:
    """T1 and grey-matter mask, each (Z, Y, X) with anterior first. Whatever nilearn prints is kept off stdout."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from nilearn.datasets import load_mni152_gm_mask, load_mni152_template

            loaded = (load_mni152_template(resolution=1), load_mni152_gm_mask(resolution=1))
    except ImportError as error:
        raise _missing() from error
    template, mask = (np.asarray(volume.dataobj).transpose(2, 1, 0)[:, ::-1] for volume in loaded)
    return template.astype(np.float64), mask


def _blocks(volume: np.ndarray) -> np.ndarray:
    """(Z, Y, X) as (Z, Y // 2, 2, X // 2, 2); an odd last row or column, which is air, is dropped."""
    z, y, x = volume.shape
    return volume[:, : y // 2 * 2, : x // 2 * 2].reshape(z, y // 2, 2, x // 2, 2)


def _cut(slices: np.ndarray) -> np.ndarray:
    top, left = ((length - SIDE) // 2 for length in slices.shape[1:])
    return np.ascontiguousarray(slices[:, top : top + SIDE, left : left + SIDE])


DATASETS: Mapping[str, Callable[..., Dataset[Any]]] = {"mni": mni}


def opened(name: str, args: Mapping[str, Any]) -> Dataset[Any]:
    """The data of `lab:NAME`. Raises `DataError` for a name that is not in `DATASETS`, or where it fails."""
    if name not in DATASETS:
        remedy = near(name, DATASETS) or f"use one of {', '.join(DATASETS)}"
        raise DataError(f"the lab has no data {name!r}", remedy=remedy)
    return call(f"lab:{name}", DATASETS[name], args, DataError)
