"""What the benchmarks measured, and the pages that are made of it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("keeping", "table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module("table")


def test_the_table_and_the_readme_say_what_was_measured(table: ModuleType) -> None:
    """`python benchmarks/table.py` writes both."""
    assert table.TABLE.read_text("utf-8") == table.table()
    readme = table.README.read_text("utf-8")
    assert readme == table.with_citations(readme)
    first_screen = readme.split("\n## ")[0]
    assert table.citations() in first_screen
    assert table.citations().count("\n- ") == 1, "two lines"


def test_a_figure_that_is_measured_again_takes_the_old_ones_place(
    table: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keeping = sys.modules["keeping"]
    monkeypatch.setattr(keeping, "MEASURED", tmp_path)
    monkeypatch.setattr(table, "MEASURED", tmp_path)
    keeping.keep("there/files.py", "a diff", "a loop", 0.87654, least=0.9)
    keeping.keep("there/files.py", "a copy", "cp", 12.3456, unit=" MB")
    keeping.keep("there/files.py", "a diff", "a loop", 1.01, least=0.9)
    diff, copy = table.figures()
    assert (diff.value, diff.shown, diff.hold, diff.holds) == (1.01, "1.01", "≥ 0.9", True)
    assert (copy.shown, copy.hold, copy.holds) == ("12.3 MB", "", None)
    assert f"| a diff | a loop | 1.01 | ≥ 0.9 | ✓ | [`files.py`](files.py) | {diff.date} |" in table.table()


@pytest.mark.parametrize(("value", "holds"), [(3.4, True), (3.5, True), (3.6, False)])
def test_what_is_above_its_bound_does_not_hold(table: ModuleType, value: float, holds: bool) -> None:
    figure = table.Figure("load", "a sweep", "alone", value, " ×", None, 3.5, "", "")
    assert (figure.holds, figure.hold) == (holds, "≤ 3.5 ×")
