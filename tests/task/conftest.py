from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


@pytest.fixture
def write_folder(tmp_path: Path) -> Write:
    """Writes {relative path: array} below a data folder."""

    def write(files: Mapping[str, np.ndarray], name: str = "scans") -> Path:
        root = tmp_path / name
        for place, array in files.items():
            save(root / place, array)
        return root

    return write


@pytest.fixture
def scans(write_folder: Write) -> Path:
    """Five 16 × 16 grey images whose mask is where they are bright; two subjects."""
    rng = np.random.default_rng(0)
    files = {}
    for at, name in enumerate(["s1_a", "s1_b", "s2_a", "s2_b", "s2_c"]):
        image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        files[f"images/{name}.png"] = image
        files[f"masks/{name}.png"] = ((image > 128 + 10 * at) * 255).astype(np.uint8)
    return write_folder(files)
