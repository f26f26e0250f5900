"""Photographs as JPEG beside masks as PNG, as in Pascal VOC, Oxford Pets, ISIC and ADE20K.

Relatives: `.jpeg` and upper-case suffixes, grey ones, the eight EXIF orientations (JPEG and PNG), a phone's JPEG
with a second picture behind the first, BMP (PH2); masks as JPEG, also under a PNG's name; CMYK, alpha, cut files,
two files of one stem: each one sentence.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program import good
from PIL import Image, ImageOps

from ckptswap.errors import DataError
from ckptswap.task.data.folder import FolderSamples, read_image, read_mask

SOURCE = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
"""
ORIENTATION = 0x0112
# What a camera that was held so has stored, from the upright picture, by the EXIF standard's own table.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "seg.py").write_text(SOURCE)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def smooth(height: int = 24, width: int = 32) -> np.ndarray:
    """What JPEG stores almost exactly, and no turn leaves alone."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 8, columns * 6, 255 - rows * 4 - columns * 3], axis=-1).astype(np.uint8)


def save(picture: np.ndarray, path: str | Path, orientation: int | None = None, **how: object) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture)).save(path, exif=exif, **how)


def voc(suffix: str, count: int = 10, orientation: int = 1) -> None:
    draw = np.random.default_rng(0)
    for at in range(count):
        image = (draw.random((16, 20, 3)) * 255).astype("u1")
        save(STORED[orientation](image), f"voc/images/{at}{suffix}", orientation, quality=95)
        save((image.mean(-1) > 127).astype("u1"), f"voc/masks/{at}.png")


def plain_accuracy(suffix: str) -> float:
    """The share of pixels that are right, by Pillow and torch alone."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    model.load_state_dict(torch.load("a.pt", weights_only=True))
    values = []
    for at in range(10):
        picture = ImageOps.exif_transpose(Image.open(f"voc/images/{at}{suffix}"))
        image = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / 255)
        truth = np.asarray(Image.open(f"voc/masks/{at}.png"))
        with torch.no_grad():
            guess = model(image[None])[0].argmax(0).numpy()
        values.append((guess == truth).mean())
    return float(np.mean(values))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".JPEG"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_score_is_that_of_a_plain_loop(suffix: str, orientation: int) -> None:
    voc(suffix, orientation=orientation)
    torch.manual_seed(0)
    space: dict[str, object] = {}
    exec(SOURCE, space)
    torch.save(space["net"]().state_dict(), "a.pt")  # type: ignore[operator]
    how = (
        "--model",
        "seg.py:net",
        "--data",
        "voc",
        "--metric",
        "accuracy",
        "--threads",
        1,
        "--format",
        "json",
    )
    found = good("evaluate", "a.pt", *how).json["checkpoints"][0]["scores"]
    assert found["accuracy"]["value"] == pytest.approx(plain_accuracy(suffix), rel=1e-6)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_it_is_turned_as_its_exif_data_say(orientation: int, suffix: str) -> None:
    upright = smooth()
    save(STORED[orientation](upright), f"images/a{suffix}", orientation)
    found = read_image(Path(f"images/a{suffix}"))
    assert found.shape == (3, *upright.shape[:2])
    assert np.abs(found.transpose(1, 2, 0) * 255 - upright).max() <= (20 if suffix == ".jpg" else 0.001)
    with Image.open(f"images/a{suffix}") as picture:
        by_pillow = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(found, by_pillow.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("orientation", [0, 9, None])
def test_an_orientation_that_says_nothing_changes_nothing(orientation: int | None) -> None:
    save(smooth(), "images/a.jpg", orientation)
    assert read_image(Path("images/a.jpg")).shape == (3, 24, 32)


def test_grey_ones_have_one_channel() -> None:
    save(smooth()[..., 0], "images/a.jpg")
    assert read_image(Path("images/a.jpg")).shape == (1, 24, 32)


def test_a_phones_jpeg_with_a_second_picture_is_its_first() -> None:
    Path("images").mkdir()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    first, second = Image.fromarray(np.rot90(smooth(), 1).copy()), Image.fromarray(smooth() // 2)
    first.save("images/a.jpg", format="MPO", save_all=True, append_images=[second], exif=exif)
    with Image.open("images/a.jpg") as picture:
        assert (picture.format, picture.n_frames) == ("MPO", 2)
    found = read_image(Path("images/a.jpg"))
    assert np.abs(found.transpose(1, 2, 0) * 255 - smooth()).max() <= 20


def test_bmp_is_read_as_image_and_mask() -> None:
    save(smooth(), "images/a.bmp")
    save((smooth()[..., 0] > 99).astype(np.uint8), "masks/a.bmp")
    [(image, mask, _)] = list(FolderSamples("."))
    np.testing.assert_array_equal(image, smooth().transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(mask, smooth()[..., 0] > 99)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"images/0.jpg": "RGB", "masks/0.jpg": "L"}, "masks/0.jpg is a JPEG, whose loss changes the class ids"),
        ({"images/0.jpg": "RGB", "masks/0.JPEG": "L"}, "masks/0.JPEG is a JPEG"),
        ({"images/0.jpg": "RGB", "images/0.png": "RGB", "masks/0.png": "L"}, "images has both 0.jpg and 0.png"),
        ({"images/0.jpg": "RGB", "images/0.JPG": "RGB", "masks/0.png": "L"}, "images has both 0.JPG and 0.jpg"),
        (
            {"images/0.jpg": "CMYK", "masks/0.png": "L"},
            "images/0.jpg has the colour mode CMYK: save it as grey or",
        ),
        (
            {"images/0.png": "RGBA", "masks/0.png": "L"},
            "images/0.png has the colour mode RGBA: save it as grey or",
        ),
        ({"images/0.webp": "RGB", "masks/0.png": "L"}, "is neither PNG, JPEG, TIFF, BMP nor NPY: convert it"),
    ],
)
def test_what_is_refused_is_told_in_one_sentence(files: dict[str, str], words: str) -> None:
    for place, mode in files.items():
        Path(place).parent.mkdir(exist_ok=True)
        picture = Image.fromarray(smooth()).convert(mode)
        picture.save(place) if mode != "L" else picture.point(lambda value: value > 99).convert("L").save(place)
    with pytest.raises(DataError) as caught:
        list(FolderSamples("."))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_jpeg_under_a_pngs_name_is_no_mask() -> None:
    save(smooth(), "images/0.jpg")
    content = io.BytesIO()
    Image.fromarray(smooth()[..., 0]).save(content, format="JPEG")
    Path("masks").mkdir()
    Path("masks/0.png").write_bytes(content.getvalue())
    with pytest.raises(DataError, match=r"masks/0\.png cannot be read as an image"):
        read_mask(Path("masks/0.png"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_cut_jpeg_is_refused(share: float) -> None:
    draw = np.random.default_rng(0)
    save((draw.random((32, 32, 3)) * 255).astype(np.uint8), "images/0.jpg")
    whole = Path("images/0.jpg").read_bytes()
    Path("images/0.jpg").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"images/0\.jpg cannot be read as an image"):
        read_image(Path("images/0.jpg"))


def test_other_decoded_values_are_other_data() -> None:
    """Decoders of JPEG differ in last bits: a run's key holds the decoded values, not the file's bytes."""
    from ckptswap.task.data import load_data
    from ckptswap.task.spec import TaskSpec

    voc(".jpg", count=4)
    spec = TaskSpec(data="voc", threads=1)
    before = load_data(spec).fingerprint()
    save(read_pixels("voc/images/2.jpg") ^ 1, "voc/images/2.png")
    Path("voc/images/2.jpg").unlink()
    assert load_data(spec).fingerprint() != before
    save(read_pixels("voc/images/2.png") ^ 1, "voc/images/2.png")
    assert load_data(spec).fingerprint() == before, "the same values from a file of another format"


def read_pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).copy()
