"""The program's runner of tests/cli, for tests that stand here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from cli_program import good, run

__all__ = ["good", "run"]
