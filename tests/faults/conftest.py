"""A folder with a small model of the user's, its data, and two checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chaos
import pytest


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a sweep that nothing befell."""
    return chaos.finish(chaos.make(tmp_path_factory.mktemp("whole") / "work"), "whole")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return chaos.make(tmp_path / "work")
