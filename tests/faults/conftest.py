"""A folder with a small model of the user's, its data, and two checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chaos
import pytest
from once import once


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a sweep that nothing befell."""
    place = once(tmp_path_factory, "whole", lambda place: chaos.finish(chaos.make(place / "work"), "whole"))
    return json.loads((place / "work/whole.out").read_text())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return chaos.make(tmp_path / "work")
