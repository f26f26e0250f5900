from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ckptswap.errors import DataError, UsageError
from ckptswap.task import TaskSpec
from ckptswap.task.data import folder, load_data
from ckptswap.task.data.folder import FolderSamples, groups_of, read_image, read_mask

GREY = np.array([[0, 51], [102, 255]], np.uint8)
ONES = np.ones((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("a.png", GREY, [[[0, 0.2], [0.4, 1]]]),
        ("a.tif", GREY, [[[0, 0.2], [0.4, 1]]]),
        ("a.npy", GREY, [[[0, 0.2], [0.4, 1]]]),
        ("a.png", np.array([[0, 13107], [26214, 65535]], np.uint16), [[[0, 0.2], [0.4, 1]]]),
        ("a.tiff", np.array([[0, 13107], [26214, 65535]], np.uint16), [[[0, 0.2], [0.4, 1]]]),
        ("a.npy", np.array([[0, 13107]], ">u2"), [[[0, 0.2]]]),
        ("a.npy", np.array([[True, False]]), [[[1, 0]]]),
        ("a.png", np.array([[True, False]]), [[[1, 0]]]),
        ("a.npy", np.array([[-2.5, 7.0]]), [[[-2.5, 7.0]]]),
        ("a.npy", np.array([[-2.5, 7.0]], np.float16), [[[-2.5, 7.0]]]),
        ("a.tif", np.array([[-2.5, 7.0]], np.float32), [[[-2.5, 7.0]]]),
        ("a.png", np.array([[[0, 51, 255]]], np.uint8), [[[0]], [[0.2]], [[1]]]),
        ("a.npy", np.array([[[0, 51, 255]]], np.uint8), [[[0]], [[0.2]], [[1]]]),
        ("a.npy", np.array([[[51, 0]], [[255, 0]]], np.uint8), [[[0.2, 0]], [[1, 0]]]),
    ],
)  # fmt: skip
def test_images_are_scaled_by_their_integer_type(
    tmp_path: Path, name: str, array: np.ndarray, expected: list[object]
) -> None:
    path = tmp_path / name
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)
    image = read_image(path)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image, np.array(expected, np.float32), rtol=1e-6)


def test_a_palette_is_colours_in_an_image_and_classes_in_a_mask(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 2]], np.uint8))
    picture.putpalette([0, 0, 0, 9, 9, 9, 255, 0, 51])
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        picture.save(tmp_path / place / "a.png")
    assert read_mask(tmp_path / "masks" / "a.png").tolist() == [[0, 2]]
    np.testing.assert_allclose(read_image(tmp_path / "images" / "a.png")[:, 0, 1], [1, 0, 0.2])


def test_samples_come_in_natural_order_with_their_masks(write_folder) -> None:
    files = {f"images/{name}.png": GREY for name in ("s10", "s9", "s1")}
    files |= {f"masks/s{at}.npy": np.full((2, 2), at) for at in (1, 9, 10, 77)}
    files["images/.hidden.png"] = GREY
    samples = FolderSamples(write_folder(files))
    assert len(samples) == 3
    assert [samples[at][1][0, 0].item() for at in range(3)] == [1, 9, 10]
    assert [samples[at][2] for at in range(3)] == ["s1", "s9", "s10"]


def folder_of(write_folder, *masks: list[int]) -> Path:
    files = {f"images/{at}.npy": np.zeros((1, len(mask)), np.uint8) for at, mask in enumerate(masks)}
    return write_folder(files | {f"masks/{at}.png": np.array([mask], np.uint8) for at, mask in enumerate(masks)})


def masks_of(write_folder, *masks: list[int], ignore: int | None = None) -> list[list[int]]:
    samples = FolderSamples(folder_of(write_folder, *masks), ignore=ignore)
    return [samples[at][1][0].tolist() for at in range(len(masks))]


def test_255_is_1_only_where_no_mask_has_other_classes(write_folder) -> None:
    assert masks_of(write_folder, [0, 255], [0, 0]) == [[0, 1], [0, 0]]
    assert masks_of(write_folder, [0, 255], [0, 5]) == [[0, 255], [0, 5]]
    assert masks_of(write_folder, [0, 1], [1, 1]) == [[0, 1], [1, 1]]


@pytest.mark.parametrize("last", [[0, 5], [0, 255], [0, 0]])
def test_a_limit_does_not_change_how_masks_are_read(write_folder, last: list[int]) -> None:
    root = folder_of(write_folder, [0, 0], [0, 255], [255, 255], last)
    whole = FolderSamples(root)
    for limit in (1, 2, "first:3"):
        limited = load_data(TaskSpec(data=str(root), limit=limit))
        for batch in limited.batches():
            for place, mask in zip(batch.places.tolist(), batch.targets, strict=True):
                assert torch.equal(mask, whole[limited.number(place)][1])


def test_a_mask_that_the_survey_did_not_see_is_refused_rather_than_read_wrongly(
    write_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SURVEYED", 2)
    root = folder_of(write_folder, [0, 255], [0, 7], [0, 0], [0, 255])
    samples = FolderSamples(root)  # 0 and 2 are looked at, and 1, as 2 is empty
    assert [samples[at][1][0].tolist() for at in range(4)] == [[0, 255], [0, 7], [0, 0], [0, 255]]
    root = folder_of(write_folder, [0, 255], [0, 7], [255, 0], [0, 255])
    samples = FolderSamples(root)
    assert samples[2][1][0].tolist() == [1, 0]
    with pytest.raises(DataError, match=r"masks/1\.png holds 7, but others .* 0 and 255 only.*--ignore 255"):
        samples[1]
    assert FolderSamples(root, ignore=255)[1][1][0].tolist() == [0, 7]


def test_few_masks_are_read_for_the_survey(write_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(folder, "read_mask", lambda path: read.append(path.stem) or read_mask(path))
    FolderSamples(folder_of(write_folder, *[[0, 1]] * 200))
    assert read == ["0"]
    read.clear()
    FolderSamples(folder_of(write_folder, *[[0, 255]] * 200))
    assert len(read) == folder.SURVEYED
    assert max(int(each) for each in read) > 190
    read.clear()
    FolderSamples(folder_of(write_folder, [0, 255]), target="input")
    assert read == []


def test_the_ignore_value_stays(write_folder) -> None:
    assert masks_of(write_folder, [0, 255, 1], ignore=255) == [[0, 255, 1]]
    assert masks_of(write_folder, [0, 255, 9], ignore=9) == [[0, 1, 9]]
    assert masks_of(write_folder, [0, 255, 255], ignore=255) == [[0, 255, 255]]


def test_the_input_as_target_needs_no_masks(write_folder) -> None:
    image, target, _ = FolderSamples(write_folder({"images/a.png": GREY}), target="input")[0]
    assert target is image


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no folder"),
        ({"masks/a.png": ONES}, "has no folder images/"),
        ({"images/a.png": GREY}, "has no folder masks/"),
        ({"images/.a.png": GREY, "masks/a.png": ONES}, "has no PNG, JPEG, TIFF, BMP or NPY"),
        ({"images/a.png": GREY, "masks/b.png": ONES}, r"no pairs found in .*: a\.png against b\.png"),
        ({"images/a.png": GREY, "images/b.png": GREY, "masks/a.npy": ONES}, r"no mask for b\.png"),
        ({"images/a.png": GREY, "images/a.npy": GREY, "masks/a.png": ONES}, "has both a.npy and a.png"),
        ({"images/a.gif": GREY, "masks/a.png": ONES}, "is neither PNG, JPEG, TIFF, BMP nor NPY"),
        ({"images/a.png": GREY, "masks/a.png": np.ones((3, 4), np.uint8)}, r"is 3×4 but its image a\.png is 2×2"),
        ({"images/a.png": GREY, "masks/a.png": np.ones((2, 2, 3), np.uint8)}, "has the shape"),
        ({"images/a.png": np.ones((2, 2, 4), np.uint8), "masks/a.png": ONES}, "colour mode RGBA"),
        ({"images/a.npy": GREY, "masks/a.npy": ONES * 0.5}, "not class ids"),
        ({"images/a.npy": GREY.astype(np.int16), "masks/a.npy": ONES}, "holds int16 values"),
        ({"images/a.npy": np.full((2, 2), np.nan), "masks/a.npy": ONES}, "NaN"),
        ({"images/a.npy": np.zeros((0, 2)), "masks/a.npy": ONES}, "is empty"),
        ({"images/a.npy": np.zeros((1, 2, 2, 2)), "masks/a.npy": ONES}, "has the shape"),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit(write_folder, files: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        FolderSamples(write_folder(files))[0]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_files_that_are_no_images(write_folder, name: str, content: bytes | None) -> None:
    root = write_folder({f"images/{name}": GREY, "masks/a.png": ONES})
    path = root / "images" / name
    path.write_bytes(path.read_bytes()[:45] if content is None else content)
    with pytest.raises(DataError, match=rf"{name} cannot be read as an image") as caught:
        FolderSamples(root)[0]
    assert "\n" not in str(caught.value)


def test_a_pickle_in_an_npy_file_does_not_run(write_folder) -> None:
    root = write_folder({"images/a.npy": GREY, "masks/a.png": ONES})
    np.save(root / "images" / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        FolderSamples(root)[0]


def test_several_pages_are_refused(write_folder) -> None:
    root = write_folder({"images/a.tif": GREY, "masks/a.png": ONES})
    page = Image.fromarray(GREY)
    page.save(root / "images" / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match="has 2 pages"):
        FolderSamples(root)[0]


def test_groups_from_a_column_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("name,age,group\na.png,3,x\nb,4,y\nc,5,x\n")
    assert groups_of(["c", "b", "a"], str(path)) == ["x", "y", "x"]
    with pytest.raises(DataError, match="gives no group to d, e"):
        groups_of(["a", "d", "e"], str(path))
    for text in ("name,group\n", "a,b\n1,2\n", "name,group\na,\n"):
        path.write_text(text)
        with pytest.raises(DataError, match="needs the columns name and group"):
            groups_of(["a"], str(path))
    with pytest.raises(DataError, match="cannot be read"):
        groups_of(["a"], str(tmp_path / "none.csv"))


def test_groups_from_a_pattern() -> None:
    with pytest.raises(DataError, match="gives no group to x"):
        groups_of(["s1_a", "x"], r"(s\d+)_")
    for pattern in (r"s\d+_", "(a)(b)", "("):
        with pytest.raises(UsageError):
            groups_of(["s1_a"], pattern)


def test_other_formats_under_a_known_suffix_are_not_decoded(write_folder) -> None:
    root = write_folder({"images/a.png": GREY, "masks/a.png": ONES})
    Image.fromarray(GREY).save(root / "images" / "a.png", format="GIF")
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        FolderSamples(root)[0]
