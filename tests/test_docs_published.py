"""The page of published files tells what `show` prints: two files of the tests' own packages hold it to that."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from test_docs import ROOT, script

published = script("published_files")
PAGE = (ROOT / "docs/reference/published-files.md").read_text("utf-8")
AT_HAND = ("onnx", "h5py")


def test_every_file_of_the_list_is_on_the_page() -> None:
    files = [(f"{package.name} {package.version}", Path(path).name, what) for package in published.PACKAGES
             for path, what in package.files.items()]  # fmt: skip
    assert [f"| {package} | `{file}` | {what} | " in PAGE for package, file, what in files] == [True] * len(files)
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| package")]
    assert len(lines) == len(files) >= 25
    assert len({what for *_, what in files}) >= 12
    assert f"[{len(files)} published files]" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", AT_HAND)
def test_it_says_what_show_prints(name: str) -> None:
    """One file of each package, whatever its version: the last of the list."""
    if (found := find_spec(name)) is None or found.origin is None:
        pytest.skip(f"{name} is not installed")
    package = next(package for package in published.PACKAGES if package.name == name)
    path, what = list(package.files.items())[-1]
    row = published.shown(Path(found.origin).parent.parent / path, f"{name} {package.version}", what)
    assert published.line(row) in PAGE.splitlines()
