"""Case 11 in other shapes: pictures as people have them, by the whole command, beside a loop of Pillow and torch.

Class folders with upper-case endings and turned photographs; Pascal VOC's layout with `.JPEG`; 16-bit grey PNG and
TIFF; grey photographs among coloured ones; progressive JPEG with a colour profile, and pictures under another
format's name; folders within folders; and what is refused, by every command that reads data, in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program_of_cases import good, run
from PIL import Image, ImageCms, ImageOps
from plain import run_file
from torch import Tensor, nn

SOURCE = """
import torch
from torch import nn


class Classes(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.head = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def classes(channels=3):
    return Classes(channels)


def masks(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
"""
ORIENTATION = 0x0112
DRAW = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(SOURCE, "utf-8")


def drawn(*shape: int, most: int = 255, dtype: str = "u1") -> np.ndarray:
    return DRAW.integers(0, most + 1, shape).astype(dtype)


def save(picture: np.ndarray, path: str, orientation: int | None = None, **how: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if orientation is not None:
        how["exif"] = Image.Exif()
        how["exif"][ORIENTATION] = orientation  # type: ignore[index]
    Image.fromarray(picture).save(path, **how)


def model(kind: str, channels: int = 3) -> nn.Module:
    """A network whose file is `a.pt`."""
    torch.manual_seed(0)
    network: nn.Module = run_file("net.py")[kind](channels)
    torch.save(network.state_dict(), "a.pt")
    return network.eval()


def scores(kind: str, *how: object, channels: int = 3) -> dict[str, float]:
    task = (
        "--model",
        f"net.py:{kind}",
        "--model-args",
        f"channels={channels}",
        "--threads",
        1,
        "--format",
        "json",
    )
    found = good("evaluate", "a.pt", *task, *how).json["checkpoints"][0]["scores"]
    return {name: each["value"] for name, each in found.items()}


def by_pillow(path: str, most: int = 255) -> Tensor:
    """An upright picture (C, H, W) in 0…1."""
    array = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(np.float32) / np.float32(most)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def loss(network: nn.Module, samples: Iterable[tuple[Tensor, Tensor]], ignore: int = -100) -> float:
    """The mean over samples of each one's cross entropy."""
    values = []
    with torch.no_grad():
        for image, target in samples:
            values.append(
                nn.functional.cross_entropy(network(image[None]), target[None], ignore_index=ignore).item()
            )
    return float(np.mean(values))


def test_a_folder_a_class_of_photographs() -> None:
    places = []
    for number, name in enumerate(("ape", "bee", "cow")):
        for at, (suffix, orientation) in enumerate(((".JPG", 6), (".jpeg", None), (".png", 3), (".JPEG", 8))):
            save(drawn(12, 16, 3), path := f"set/{name}/IMG_{at}{suffix}", orientation)
            places.append((path, number))
    network = model("classes")
    expected = loss(network, ((by_pillow(path), torch.tensor(number)) for path, number in places))
    assert scores("classes", "--data", "set", "--metric", "loss")["loss"] == pytest.approx(expected, rel=1e-5)


def test_pascal_vocs_layout() -> None:
    for at in range(6):
        save(drawn(12, 16, 3), f"VOC/JPEGImages/{at}.JPEG", quality=90)
        ids = drawn(12, 16, most=2)
        ids[0] = 255
        mask = Image.new("P", (16, 12))
        mask.putdata(ids.flatten().tolist())
        mask.putpalette([value for value in range(256) for _ in "rgb"])
        Path("VOC/SegmentationClass").mkdir(exist_ok=True)
        mask.save(f"VOC/SegmentationClass/{at}.png")
    network = model("masks")
    samples = []
    for at in range(6):
        truth = torch.from_numpy(np.asarray(Image.open(f"VOC/SegmentationClass/{at}.png")).astype(np.int64))
        samples.append((by_pillow(f"VOC/JPEGImages/{at}.JPEG"), truth))
    expected = loss(network, samples, ignore=255)
    assert scores("masks", "--data", "VOC", "--metric", "loss")["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_grey_of_16_bits(suffix: str) -> None:
    for at in range(5):
        save(drawn(12, 16, most=65535, dtype="u2"), f"set/images/{at}{suffix}")
        save(drawn(12, 16, most=2), f"set/masks/{at}.png")
    network = model("masks", 1)
    samples = [
        (by_pillow(f"set/images/{at}{suffix}", 65535), by_pillow(f"set/masks/{at}.png", 1)[0].long())
        for at in range(5)
    ]
    found = scores("masks", "--data", "set", "--metric", "loss", channels=1)
    assert found["loss"] == pytest.approx(loss(network, samples), rel=1e-5)


def mixed_folder() -> None:
    """Two coloured photographs and a grey one."""
    for at, shape in enumerate(((12, 16, 3), (12, 16), (12, 16, 3))):
        save(drawn(*shape), f"set/images/{at}.jpg")
        save(drawn(12, 16, most=2), f"set/masks/{at}.png")


def test_grey_photographs_among_coloured_ones() -> None:
    mixed_folder()
    network = model("masks")
    task = ("--model", "net.py:masks", "--data", "set", "--metric", "loss", "--threads", 1)
    refused = run("evaluate", "a.pt", *task)
    assert refused.code == 2
    assert "--data-args color=rgb" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    samples = [
        (by_pillow(f"set/images/{at}.jpg").expand(3, -1, -1), by_pillow(f"set/masks/{at}.png", 1)[0].long())
        for at in range(3)
    ]
    found = scores("masks", "--data", "set", "--data-args", "color=rgb", "--metric", "loss")
    assert found["loss"] == pytest.approx(loss(network, samples), rel=1e-5)


def progressive(picture: np.ndarray, path: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(picture, path, progressive=True, icc_profile=profile)


def under_another_name(picture: np.ndarray, path: str) -> None:
    """A PNG whose name ends in .jpg: the content decides."""
    save(picture, path, format="PNG")


def under_a_pngs_name(picture: np.ndarray, path: str) -> None:
    save(picture, str(Path(path).with_suffix(".png")), format="JPEG")


@pytest.mark.parametrize("write", [progressive, under_another_name, under_a_pngs_name])
def test_pictures_of_other_makes(write: Callable[[np.ndarray, str], None]) -> None:
    for at in range(4):
        write(drawn(12, 16, 3), f"set/images/{at}.jpg")
        save(drawn(12, 16, most=2), f"set/masks/{at}.png")
    network = model("masks")
    samples = [
        (by_pillow(str(path)), by_pillow(f"set/masks/{path.stem}.png", 1)[0].long())
        for path in sorted(Path("set/images").iterdir())
    ]
    found = scores("masks", "--data", "set", "--metric", "loss")
    assert found["loss"] == pytest.approx(loss(network, samples), rel=1e-5)


def test_folders_within_folders_and_endings_of_every_case() -> None:
    for patient in ("p1", "P2"):
        for at in range(3):
            save(drawn(12, 16, 3), f"set/images/{patient}/Scan{at}.JPG", 1)
            save(drawn(12, 16, most=2), f"set/masks/{patient}/Scan{at}_mask.PNG")
    network = model("masks")
    samples = [
        (
            by_pillow(str(path)),
            by_pillow(str(path.parents[2] / f"masks/{path.parent.name}/{path.stem}_mask.PNG"), 1)[0].long(),
        )
        for path in sorted(Path("set/images").rglob("*.JPG"))
    ]
    found = scores("masks", "--data", "set", "--metric", "loss")
    assert found["loss"] == pytest.approx(loss(network, samples), rel=1e-5)


REFUSED: dict[str, tuple[str, dict[str, object], str]] = {
    "cmyk": ("CMYK", {"suffix": ".jpg"}, "has the colour mode CMYK: save it as grey or RGB"),
    "alpha": ("RGBA", {"suffix": ".png"}, "has the colour mode RGBA: save it as grey or RGB"),
    "grey and alpha": ("LA", {"suffix": ".png"}, "has the colour mode LA: save it as grey or RGB"),
    "webp": ("RGB", {"suffix": ".webp"}, "is neither PNG, JPEG, TIFF, BMP nor NPY: convert it"),
    "gif": ("P", {"suffix": ".gif"}, "is neither PNG, JPEG, TIFF, BMP nor NPY: convert it"),
    "gif by another name": ("P", {"suffix": ".png", "format": "GIF"}, "cannot be read as an image"),
    "pages": ("RGB", {"suffix": ".tif", "save_all": True}, "has 2 pages: save one a file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_one_sentence_and_nothing_is_written(kind: str) -> None:
    mode, how, words = REFUSED[kind]
    how = dict(how)
    suffix = how.pop("suffix")
    for at in range(3):
        save(drawn(12, 16, most=2), f"set/masks/{at}.png")
        save(drawn(12, 16, 3), f"set/images/{at}.png")
    Path("set/images/1.png").unlink()
    pages = [Image.fromarray(drawn(12, 16, 3)).convert(mode) for _ in range(2)]
    pages[0].save(f"set/images/1{suffix}", **({**how, "append_images": pages[1:]} if "save_all" in how else how))
    model("masks")
    before = sorted(Path.cwd().rglob("*"))
    task = ("--model", "net.py:masks", "--data", "set", "--metric", "loss", "--threads", 1)
    for command in (["evaluate", "a.pt"], ["sweep", "--from", "zeros", "--to", "a.pt", "--run", "run"]):
        refused = run(*command, *task)
        assert (refused.code, refused.out) == (2, "")
        assert f"set/images/1{suffix} {words}" in refused.err
        assert len(refused.err.strip().splitlines()) == 1
    assert sorted(path for path in Path.cwd().rglob("*") if "__pycache__" not in path.parts) == before
