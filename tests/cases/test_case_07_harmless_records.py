"""A state dict beside records of harmless classes is read: torch's version, paths of Python 3.13.

Relatives: all classes of paths, the same within a map and in every protocol, extra states in a stream, arrays in
protocol 5, empty bytes in protocols 1 and 2."""

from __future__ import annotations

import argparse
import io
import pathlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from cli_program import good, run

torch = pytest.importorskip("torch")
PATHS = ["PosixPath", "PurePosixPath", "PureWindowsPath"]


@pytest.fixture
def python_313() -> Iterator[None]:
    """Paths lie in `pathlib._local` there, and in no other Python."""
    local = argparse.Namespace(**{name: getattr(pathlib, name) for name in PATHS})
    with patch.dict(sys.modules, {"pathlib._local": local}):
        for name in PATHS:
            patch.object(getattr(pathlib, name), "__module__", "pathlib._local").start()
        yield
    patch.stopall()


def shown(folder: Path, content: Any, **how: Any) -> list[str]:
    torch.save(content, folder / "a.pt", **how)
    return [row["name"] for row in good("show", folder / "a.pt", "--format", "json").json["rows"]]


STATE = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_the_version_of_torch(protocol: int, tmp_path: Path) -> None:
    content = {"state_dict": STATE, "torch_version": torch.__version__, "args": [{"version": torch.__version__}]}
    assert shown(tmp_path, content, pickle_protocol=protocol) == ["bias", "weight"]


@pytest.mark.usefixtures("python_313")
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", PATHS)
def test_paths_of_python_313(name: str, protocol: int, tmp_path: Path) -> None:
    root = getattr(pathlib, name)("data/a")
    content = {"state_dict": STATE, "hyper_parameters": {"root": root, "args": argparse.Namespace(out=root)}}
    assert shown(tmp_path, content, pickle_protocol=protocol) == ["bias", "weight"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_stream_for_an_extra_state(zipped: bool, tmp_path: Path) -> None:
    """The tensors are read; what the stream holds is not, and is said."""
    content = {"model": {**STATE, "_extra_state": io.BytesIO(b"fp8")}}
    assert shown(tmp_path, content, _use_new_zipfile_serialization=zipped) == ["_extra_state", "bias", "weight"]
    assert "_extra_state (bytes)" in run("show", tmp_path / "a.pt").err


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_arrays_and_bytes_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    content = {"state_dict": STATE, "history": {"loss": np.arange(3.0), "raw": b"\xff", "none": b"", "of": {1, 2}}}
    assert shown(tmp_path, content, pickle_protocol=protocol) == ["bias", "weight"]


def test_what_is_not_known_is_read_as_a_record(tmp_path: Path) -> None:
    class Unknown:
        pass

    Unknown.__qualname__ = Unknown.__name__
    with patch.object(sys.modules[__name__], "Unknown", Unknown, create=True):
        torch.save({"state_dict": STATE, "hyper_parameters": Unknown()}, tmp_path / "a.pt")
    told = good("show", tmp_path / "a.pt").err
    assert "left unread: test_case_07_harmless_records.Unknown under 'hyper_parameters'" in told
