"""One image or mask file as an array: PNG, TIFF, BMP, NPY, and for images JPEG; upright as EXIF data say."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ckptswap.errors import DataError
from ckptswap.task.callables import first_line

LOSSLESS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
LOSSY = {".jpg": "JPEG", ".jpeg": "JPEG"}
MASKS = (*LOSSLESS, ".npy")
IMAGES = (*MASKS, *LOSSY)
"""Suffixes, in lower case."""


def read_array(path: Path, *, is_mask: bool = False) -> np.ndarray:
    """What a file holds: (H, W) or (H, W, 3), of NPY files any shape; a palette is colours, in a mask class ids.

    The content decides, not the suffix. Raises `DataError` for what cannot be read, or has other colours.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.fromarray(np.array([[0, 255]], np.uint8)).save(file)
    >>> read_array(file).tolist()
    [[0, 255]]
    """
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            array = _read_picture(path, is_mask=is_mask)
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders do
        fault = f"{path} cannot be read as an image ({first_line(error)})"
        raise DataError(fault, remedy="save it anew, or take it away") from None
    if 0 in array.shape:
        raise DataError(f"{path} is empty: its shape is {list(array.shape)}", remedy="remove it")
    return array.astype(array.dtype.newbyteorder("="))


def _read_picture(path: Path, *, is_mask: bool) -> np.ndarray:
    formats = {*LOSSLESS.values(), *(() if is_mask else LOSSY.values())}
    with Image.open(path, formats=sorted(formats)) as picture:  # Pillow would run Ghostscript for EPS
        pages = getattr(picture, "n_frames", 1)
        if pages > 1 and picture.format != "MPO":  # a phone's JPEG, with a preview or a depth map behind it
            raise DataError(f"{path} has {pages} pages", remedy="save one a file")
        upright = picture if picture.format == "TIFF" else ImageOps.exif_transpose(picture)  # it turns TIFF itself
        if upright.mode == "P" and not is_mask:
            return np.asarray(upright.convert("RGB"))
        if upright.mode not in ("1", "L", "P", "RGB", "I", "F") and not upright.mode.startswith("I;16"):
            raise DataError(f"{path} has the colour mode {upright.mode}", remedy="save it as grey or RGB")
        array = np.asarray(upright)
        # Older Pillows open a 16-bit PNG as 32-bit integers; no PNG has more than 16.
        return array.astype(np.uint16) if upright.mode == "I" and picture.format == "PNG" else array
