"""A folder of images with masks or classes, which `layouts` finds: `images/` and `masks/`, one folder a class, ….

Both may be PNG, TIFF, BMP or NPY, images JPEG too, which would change a mask's class ids at every edge. Images are
grey or RGB, scaled to 0…1 by their integer type (uint8, uint16, bool; floats as they are) and nothing
more. Arrays of three axes in an NPY file are channels-last when the last axis is 1 or 3, else channels-first.
Masks hold one class id a pixel. Where the folder's masks hold 0, 255 and the ignore value only, 255 is read as 1.
That is decided from masks spread evenly over all pairs, up to `SURVEYED` that hold 255, so that a limit on the
samples does not change it; a mask that is read later and holds another value is refused. Samples come in natural
order of their names; a mask without an image is left alone. With `color=rgb` or `color=grey` images are made such.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ckptswap.errors import DataError, FileError, UsageError, listing
from ckptswap.patterns import Expression
from ckptswap.plainfiles import read_plain
from ckptswap.task.data.layouts import IGNORED, layout_of
from ckptswap.task.data.pictures import IMAGES, read_array
from ckptswap.task.data.request import refuse_unknown

COLORS = {"rgb": 3, "grey": 1}
"""What images may be made, and how many channels that is."""
ARGS = ("color", "images", "masks", "split", "labels")
SURVEYED = 64
"""Masks that hold 255, and no class id, before 255 is read as 1."""
_SCALE = {"uint8": 255, "uint16": 65535, "bool": 1}


class FolderSamples:
    """Items are (image (C, H, W) float32, target, group): target is a mask (H, W) int64, the number of a class, or
    the image itself.

    `groups`, and `targets` where they are classes, are one a sample. `args` are `color`, and what `layouts` knows.
    `target` is `masks` or `input`; `group` as in `TaskSpec`. Files are read when an item is asked for. Raises
    `DataError` where files are missing, unreadable or don't fit each other.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        target: str = "masks",
        ignore: int | None = None,
        group: str | None = None,
        args: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        refuse_unknown(args, ARGS, "a folder")
        if args.get("color") not in (None, *COLORS):
            raise UsageError(f"color is {args['color']!r}", remedy=f"it must be {' or '.join(COLORS)}")
        layout = layout_of(Path(folder), has_targets=target == "masks", args=args)
        self.pairs, self.notes = layout.pairs, layout.notes
        self.target, self.ignore = target, ignore
        self._renumbered, self._color = layout.renumbered, args.get("color")
        masks = [pair.target for pair in layout.pairs if isinstance(pair.target, Path)]
        self._white_is_one = not self._renumbered and _white_is_one(masks, ignore)
        self.groups = groups_of([pair.name for pair in self.pairs], group)
        self.targets = [pair.target for pair in self.pairs if isinstance(pair.target, int)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor, str]:
        pair = self.pairs[at]
        image_file, mask_file = pair.image, pair.target
        image = torch.from_numpy(_colored(read_image(image_file), self._color, image_file))
        if not isinstance(mask_file, Path):
            return image, image if mask_file is None else torch.tensor(mask_file), self.groups[at]
        mask = read_mask(mask_file)
        if self._renumbered:
            mask = _renumbered(mask, self._renumbered)
        if mask.shape != tuple(image.shape[1:]):
            sizes = f"{_size(mask.shape)} but its image {image_file.name} is {_size(tuple(image.shape[1:]))}"
            raise DataError(f"mask {mask_file} is {sizes}", remedy="resample one to the other")
        if self._white_is_one:
            mask = _white_as_one(mask, mask_file, self.ignore)
        return image, torch.from_numpy(mask), self.groups[at]


def read_image(path: Path) -> np.ndarray:
    """An image as float32 (C, H, W), in 0…1 unless it holds floats.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.npy"
    >>> np.save(file, np.array([[0, 255]], np.uint8))
    >>> read_image(file).tolist()
    [[[0.0, 1.0]]]
    """
    array = _channels_first(read_array(path), path)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{path} holds NaN or infinite values", remedy="fill them before")
        return np.ascontiguousarray(array, np.float32)
    if array.dtype.name not in _SCALE:
        raise DataError(f"{path} holds {array.dtype} values", remedy="save it as uint8, uint16 or float")
    return array.astype(np.float32, order="C") / np.float32(_SCALE[array.dtype.name])


def read_mask(path: Path) -> np.ndarray:
    """A mask as int64 (H, W), values as they are in the file."""
    array = read_array(path, is_mask=True)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.squeeze(-1 if array.shape[-1] == 1 else 0)
    if array.ndim != 2:
        raise DataError(f"mask {path} has the shape {list(array.shape)}", remedy="save one class id a pixel")
    whole = array.astype(np.int64)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and (whole != array).any()):
        raise DataError(f"mask {path} holds values that are not class ids", remedy="save whole numbers")
    return whole


def _white_is_one(masks: Sequence[Path], ignore: int | None) -> bool:
    """Over the whole folder: one mask of 0 and 255 beside others with class ids would be read wrongly."""
    if ignore == 255:
        return False
    white = 0
    for path in _spread(masks, SURVEYED):
        mask = read_mask(path)
        if _other_values(mask, ignore).any():
            return False
        white += bool((mask == 255).any())
        if white == SURVEYED:
            break
    return white > 0


def _spread(items: Sequence[Path], count: int) -> Iterator[Path]:
    """Each once; the first `count` or so lie evenly over the whole."""
    step = -(-len(items) // count)
    return (item for start in range(step) for item in items[start::step])


def _other_values(mask: np.ndarray, ignore: int | None) -> np.ndarray:
    """Where a mask is neither 0 nor 255 nor ignored."""
    other = (mask != 0) & (mask != 255)
    return other if ignore is None else other & (mask != ignore)


def _white_as_one(mask: np.ndarray, path: Path, ignore: int | None) -> np.ndarray:
    other = mask[_other_values(mask, ignore)]
    if other.size:
        raise DataError(
            f"mask {path} holds {other[0]}, but others of its folder 0 and 255 only, which are read as 0 and 1",
            remedy="pass --ignore 255 where it marks pixels to leave out, else save class ids in every mask",
        )
    return np.where(mask == 255, 1, mask)


def groups_of(names: list[str], group: str | None) -> list[str]:
    """Each sample's group: itself, what a regex captures from its name, or what a .csv file says.

    >>> groups_of(["s1_a", "s1_b", "s2_a"], r"(s\\d+)_")
    ['s1', 's1', 's2']
    """
    if group is None:
        return names
    groups = _groups_from_csv(group) if group.endswith(".csv") else _groups_from_pattern(group, names)
    without = [name for name in names if name not in groups]
    if without:
        raise DataError(f"--group {group} gives no group to {listing(without)}", remedy="every sample needs one")
    return [groups[name] for name in names]


def _groups_from_pattern(pattern: str, names: Iterable[str]) -> dict[str, str]:
    compiled = Expression(pattern, "--group")
    if compiled.pattern.groups != 1:
        raise UsageError(
            f"--group {pattern!r} has {compiled.pattern.groups} groups", remedy=r"write one, such as '(subj\d+)_'"
        )
    matches = ((name, compiled.search(name)) for name in names)
    return {name: match[1] for name, match in matches if match and match[1] is not None}


def _groups_from_csv(path: str) -> dict[str, str]:
    """Columns name and group; a name may carry its suffix."""
    try:
        text = read_plain(path).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (FileError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read", remedy=str(error)) from None
    if not rows or any(not row.get("name") or not row.get("group") for row in rows):
        raise DataError(f"{path} needs the columns name and group, filled in every row", remedy="add them")
    return {_stem(row["name"]): row["group"] for row in rows}


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix() if name.lower().endswith(IMAGES) else name


def _renumbered(mask: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """Class ids by a table, all others ignored."""
    out = np.full_like(mask, IGNORED)
    for before, after in table.items():
        out[mask == before] = after
    return out


def _colored(image: np.ndarray, color: str | None, path: Path) -> np.ndarray:
    """An image (C, H, W) with three equal channels, or as grey (ITU-R 601), where that is wanted."""
    if color is None or len(image) == COLORS[color]:
        return image
    if len(image) not in COLORS.values():
        raise DataError(f"{path} has {len(image)} channels", remedy="leave color out")
    if color == "rgb":
        return np.repeat(image, 3, axis=0)
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.ascontiguousarray((weights[:, None, None] * image).sum(0, keepdims=True, dtype=np.float32))


def _channels_first(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise DataError(f"{path} has the shape {list(array.shape)}", remedy="save (H, W), (H, W, 3) or (C, H, W)")
    return array.transpose(2, 0, 1) if array.shape[-1] in (1, 3) else array


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
