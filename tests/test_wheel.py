"""What is built installs into an empty place and works there, its page's files and all."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import write_checkpoint
from ckptswap.version import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel's content as an installer lays it out, built from the files that git knows."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_it_holds_the_package_its_data_and_the_licence(unpacked: Path) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    about = f"ckptswap-{__version__}.dist-info"
    assert {"ckptswap/py.typed", "ckptswap/report/page.css", f"{about}/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"ckptswap", about}
    text = (unpacked / about / "METADATA").read_text("utf-8")
    assert "License-Expression: Apache-2.0" in text


def test_it_works_where_it_was_unpacked(unpacked: Path, tmp_path: Path) -> None:
    write_checkpoint(Checkpoint.from_arrays({"fc.weight": np.zeros((2, 3))}), tmp_path / "a.safetensors")
    code = "import ckptswap, sys; sys.stderr.write(ckptswap.__file__); from ckptswap.cli.main import main; main()"
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    words = [sys.executable, "-c", code, "show", "a.safetensors"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == str(unpacked / "ckptswap/__init__.py")
    assert "fc.weight" in done.stdout
