"""The MNI slices: no leak between train and test, no brain lost, against a plain computation."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from ckptswap.errors import DataError, DependencyError
from ckptswap.lab import data


def test_blocks_are_apart() -> None:
    (train, _), (test, groups) = data.split("train"), data.split("test")
    assert (len(train), len(test), len(set(groups.tolist()))) == (45, 45, 15)
    assert np.abs(train[:, None] - test).min() == 3
    assert all(np.ptp(test[groups == group]) == 2 for group in range(15))
    assert min(train.min(), test.min()) >= 0
    assert max(train.max(), test.max()) <= 154


def test_items_are_as_documented() -> None:
    test = data.mni("test")
    image, mask, group = test[len(test) - 1]
    assert (image.shape, str(image.dtype), mask.shape, str(mask.dtype)) == (
        (1, 96, 96),
        "torch.float32",
        (96, 96),
        "torch.int64",
    )
    assert group == 14
    assert 0 <= test.images.min() < test.images.max() <= 1
    assert test.masks.unique().tolist() == [0, 1]
    assert all(0 < mask.float().mean() < 0.6 for mask in test.masks)


def test_a_slice_is_the_halved_volume_and_no_brain_is_lost() -> None:
    from nilearn.datasets import load_mni152_gm_mask, load_mni152_template

    image = np.asarray(load_mni152_template(resolution=1).dataobj)[:, :, 70]
    mask = np.asarray(load_mni152_gm_mask(resolution=1).dataobj)[:, :, 70]
    ours, ours_mask = (volume[70] for volume in data._volume())
    assert ours.sum() * 4 == pytest.approx(image.sum(), rel=1e-5)
    row, column = 40, 50  # anterior up: row r is y = 2 × (115 − (r + 10)) + 1 … + 2, column c is x = 2 × (c + 1)
    y, x = 2 * (115 - row - 10) + 1, 2 * (column + 1)
    assert ours[row, column] == pytest.approx(image[x : x + 2, y : y + 2].mean(), rel=1e-5)
    full = mask[: 98 * 2, 1:].reshape(98, 2, 116, 2).sum((1, 3)) >= 2
    assert ours_mask.sum() == full.sum()


def test_another_part_is_refused() -> None:
    with pytest.raises(DataError, match="part=train"):
        data.mni("validation")


def test_without_nilearn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(DependencyError, match=r"ckptswap\[demo\]"):
        data._templates()


def test_stdout_stays_ours(capsys: pytest.CaptureFixture[str]) -> None:
    data._templates()
    assert capsys.readouterr().out == ""


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ckptswap"


def test_what_is_kept_is_what_was_read(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = data._volume.__wrapped__()
    assert [path.suffix for path in empty_cache.iterdir()] == [".npz"]
    monkeypatch.setattr(data, "_templates", lambda: pytest.fail("what is kept was not used"))
    again, masks_again = data._volume.__wrapped__()
    assert np.array_equal(again, images)
    assert again.dtype == images.dtype
    assert np.array_equal(masks_again, masks)
    assert masks_again.dtype == masks.dtype


@pytest.fixture(scope="module")
def templates() -> tuple[np.ndarray, np.ndarray]:
    """What nilearn takes seconds to read."""
    return data._templates()


@pytest.fixture
def reading(templates: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The templates as if they were read, which is counted."""
    monkeypatch.setattr(data, "_templates", Mock(return_value=templates))
    return data._templates


@pytest.mark.parametrize("damaged", [b"", b"PK\x03\x04", b"no archive"])
def test_a_damaged_cache_is_made_anew(empty_cache: Path, reading: Mock, damaged: bytes) -> None:
    images, masks = data._volume.__wrapped__()
    (kept,) = empty_cache.iterdir()
    whole = kept.read_bytes()
    for content in (damaged, whole[:-1000], whole[:1000] + b"\xff" * 1000 + whole[2000:]):
        kept.write_bytes(content)
        again, masks_again = data._volume.__wrapped__()
        assert np.array_equal(again, images)
        assert np.array_equal(masks_again, masks)
    assert reading.call_count == 4


def test_without_a_place_for_a_cache_the_data_are_read_each_time(
    tmp_path: Path, reading: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for times in (1, 2):
        assert data._volume.__wrapped__()[0].shape[1:] == (96, 96)
        assert reading.call_count == times


def test_another_nilearn_has_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    before = data._kept()
    monkeypatch.setattr(data.importlib.metadata, "version", lambda name: "99")
    assert data._kept().name != before.name
    assert data._kept().parent == before.parent


def test_what_is_kept_is_of_no_use_without_nilearn(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise data.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(data.importlib.metadata, "version", missing)
    with pytest.raises(DependencyError, match=r"ckptswap\[demo\]"):
        data._kept()
