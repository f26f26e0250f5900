"""`datasets:FOLDER`: what `save_to_disk` of Hugging Face's datasets wrote; nothing is downloaded.

Columns are known by their names and features: an image, with a mask (an image too) or a label; a text, which is
tokenized as by `text:`; or numbers, which are the model's arguments by name, `label` or `labels` the target. Of
`--data-args`: `split=NAME` where the folder holds several, `image=`, `text=`, `label=` (a column each),
`color=rgb` or `color=grey`, and what `text:` takes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckptswap.errors import DataError, UsageError
from ckptswap.registry import library
from ckptswap.task.callables import first_line
from ckptswap.task.data import text
from ckptswap.task.data.request import DataRequest, refuse_unknown

LABELS = ("labels", "label", "mask", "annotation", "target")
IMAGES = ("image", "img", "pixel_values")
_MODES = {"rgb": "RGB", "grey": "L"}
"""What Pillow calls the colours that images may be made."""


class Images:
    """Items are (image (C, H, W) in 0…1; label or mask), without target where there is no such column."""

    def __init__(self, rows: Any, image: str, label: str | None, color: str | None) -> None:
        self._rows, self._image, self._label = rows, image, label
        self.targets = _classes(rows, label)
        self._mode = _MODES.get(color or "")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, ...]:
        row = self._rows[at]
        pixels = row[self._image]
        mode = self._mode or (pixels.mode if pixels.mode in _MODES.values() else "RGB")
        picture = np.asarray(pixels.convert(mode))
        image = torch.from_numpy(np.atleast_3d(picture).transpose(2, 0, 1).astype(np.float32) / np.float32(255))
        return (image,) if self._label is None else (image, torch.from_numpy(np.array(row[self._label], np.int64)))


class Rows:
    """Items are dicts of numbers."""

    def __init__(self, rows: Any, names: list[str], label: str | None) -> None:
        self._rows, self._names, self._label = rows, names, label
        self.targets = _classes(rows, label)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Any:
        row = self._rows[at]
        inputs = {name: row[name] for name in self._names}
        return inputs if self._label is None else (inputs, row[self._label])


def built(place: str, args: Mapping[str, Any], request: DataRequest) -> Any:
    """Open a data set. Raises `DataError` for what cannot be read, or has no such column."""
    what = f"datasets:{place}"
    refuse_unknown(args, ("split", "image", "label", "color", *text.ARGS, "text"), what)
    if args.get("color") not in (None, *_MODES):
        raise UsageError(f"color is {args['color']!r}", remedy=f"it must be {' or '.join(_MODES)}")
    rows = _opened(place, args.get("split"))
    features = rows.features
    label = _column(features, args.get("label"), LABELS, what)
    pictures = [name for name, feature in features.items() if type(feature).__name__ == "Image" and name != label]
    image = _column(features, args.get("image"), (*IMAGES, *pictures), what) if pictures else None
    if image is not None:
        return Images(rows, image, label, args.get("color"))
    words = [
        name for name, feature in features.items() if getattr(feature, "dtype", "") in ("string", "large_string")
    ]
    column = _column(features, args.get("text"), ("text", *words), what) if words else None
    if column is not None:
        labels = rows[label] if label is not None else [None] * len(rows)
        documents = [text.TextDocument(own, told) for own, told in zip(rows[column], labels, strict=True)]
        return text.Texts([document for document in documents if document.text.strip()], request, args, what)
    return Rows(rows, [name for name in features if name != label], label)


def _classes(rows: Any, label: str | None) -> Any:
    """The column of labels, where these are whole numbers."""
    are_whole = label is not None and "int" in str(getattr(rows.features[label], "dtype", ""))
    return rows[label] if are_whole else None


def _opened(place: str, split: Any) -> Any:
    datasets = library("datasets")
    if not Path(place).is_dir():
        raise DataError(f"there is no folder {place}", remedy="name one that save_to_disk wrote")
    try:
        rows = datasets.load_from_disk(place)
    except Exception as error:  # the library raises whatever its readers do
        raise DataError(f"{place} cannot be read as a data set", remedy=first_line(error)) from None
    if isinstance(rows, datasets.DatasetDict):
        if split is None and len(rows) == 1:
            split = next(iter(rows))
        if split not in rows:
            raise DataError(f"{place} has the splits {', '.join(rows)}", remedy="name one: --data-args split=NAME")
        return rows[split]
    return rows


def _column(features: Mapping[str, Any], wanted: Any, known: tuple[str, ...], what: str) -> str | None:
    """The column that was named, or the first that is known; None where there is none."""
    if wanted is not None and wanted not in features:
        raise DataError(f"{what} has no column {wanted!r}", remedy=f"use one of {', '.join(features)}")
    return wanted if wanted is not None else next((name for name in known if name in features), None)
