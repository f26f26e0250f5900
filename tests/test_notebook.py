"""What a notebook sees: small pages with the answer first, one bar in place, sentences for errors, data frames."""

from __future__ import annotations

import inspect
import pydoc
import sys
from dataclasses import fields, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ckptswap as cs
from ckptswap import messages, notebook
from ckptswap.errors import DependencyError, UsageError, brief
from ckptswap.notebook import Notebook, listens_in_notebooks
from ckptswap.report.display import LARGEST
from ckptswap.statistics import Comparison, Interval
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweeping import keywords
from ckptswap.task.spec import TaskSpec

cs.compare  # noqa: B018  results show themselves from now on


def row(at: int, kind: str) -> Row:
    layer = f"encoder.layer.{at}.attention.output.dense"
    return Row(layer, kind, (f"{layer}.x",), 4, "measured", rank=at + 1, rmse=0.5, score=0.4, drop=0.1 / (at + 1),
               sim_low=0.0, sim_high=0.2, verdict="sensitive", samples=8)  # fmt: skip


def result(layers: int, kinds: int = 2) -> SweepResult:
    rows = tuple(row(at, f"attn.{kind}.weight") for at in range(layers) for kind in range(kinds))
    return SweepResult("dice", "max", 0.01, 0.9, None, 8, rows=rows)


@pytest.mark.parametrize("layers", [1, 30, 300])
def test_a_page_is_small_and_begins_with_the_answer(layers: int) -> None:
    page = result(layers, 6)._repr_html_()  # type: ignore[attr-defined]
    assert len(page) <= LARGEST
    assert page.index("breaks it") < page.index("<table")
    assert ("background" in page) == (layers < 300), "a heatmap that is too large is left out whole"
    assert "0.1" in page


def test_plain_text_is_one_line() -> None:
    """A notebook keeps it beside the page."""
    interval = Interval(0.5, 0.4, 0.6)
    a = cs.Checkpoint.from_arrays({f"w{at}": np.ones(1) for at in range(99)})
    scored = Comparison(8, ("a",), ({"iou": interval},), (), ())
    assert [(row.path, row.metric, row.interval) for row in scored.rows] == [("a", "iou", interval)]
    for shown in (result(99), cs.diff(a, a), cs.diff3(a, a, a), cs.show(a), scored):
        assert len(repr(shown)) < 100
        assert "\n" not in repr(shown)
    assert repr(cs.show(a, only="w?")) == "<Contents <memory>: 10 of 99 tensors>"


def test_results_are_data_frames() -> None:
    pytest.importorskip("pandas")
    frame = result(3).to_pandas()  # type: ignore[attr-defined]
    assert list(frame["drop"]) == [row.drop for row in result(3).rows]
    assert (frame.attrs["metric"], frame.attrs["baseline"]) == ("dice", 0.9)
    a, b = ({"w": np.full(2, value), "v": np.zeros(1)} for value in (0.0, 1.0))
    assert list(cs.diff(a, b).to_pandas()["status"]) == ["identical", "changed"]  # type: ignore[attr-defined]
    assert list(cs.show(a, stats=True).to_pandas()["max"]) == [0.0, 0.0]
    scored = Comparison(8, ("a", "b"), ({"iou": Interval(0.5, 0.4, 0.6)}, {"iou": None}), (), ())
    told = scored.to_pandas()  # type: ignore[attr-defined]
    assert told["value"].isna().tolist() == [False, True]


def test_without_pandas_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DependencyError, match="pandas is not installed: pip install "):
        result(1).to_pandas()  # type: ignore[attr-defined]


def test_a_sweep_is_drawn(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    drawn = result(2).plot()  # type: ignore[attr-defined]
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert drawn.save(tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(UsageError, match="there is no picture 'pie'"):
        result(2).plot("pie")  # type: ignore[attr-defined]
    empty = replace(result(1), rows=())
    with pytest.raises(UsageError, match="nothing for a heatmap"):
        empty.plot()  # type: ignore[attr-defined]


# Help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diff", "report", "show", "sweep", "transplant", "verify", "evaluate"])
def test_help_shows_a_function(name: str) -> None:
    text = pydoc.render_doc(getattr(cs, name), renderer=pydoc.plaintext)
    assert text.startswith("Python Library Documentation: function")
    assert f"\n{name}(" in text
    assert "PACKAGE CONTENTS" not in text


def test_help_has_every_keyword() -> None:
    task = {"metric" if part.name == "metrics" else part.name for part in fields(TaskSpec) if part.metadata}
    known = set(inspect.signature(cs.sweep).parameters)
    assert {*keywords(), *task, "claims"} - {"samples", "command", "calibration_args"} <= known
    assert "\nbudget: Stop after so long" in (inspect.getdoc(cs.sweep) or "")
    assert task <= set(inspect.signature(cs.evaluate).parameters)


def test_a_function_still_leads_to_its_module() -> None:
    import ckptswap.sweep.spec

    assert ckptswap.sweep.spec is sys.modules["ckptswap.sweep.spec"]
    assert repr(cs.sweep) == "<function ckptswap.sweep>"
    with pytest.raises(AttributeError, match="nosuch"):
        cs.sweep.nosuch  # noqa: B018


# A kernel --------------------------------------------------------------------------------------------------------


class Kernel:
    """IPython's half of a notebook: what is displayed, and what takes its place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[list[str]] = []
        ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
        vars(ipython)["get_ipython"] = lambda: SimpleNamespace(kernel=self)
        vars(display)["display"] = self.display
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        monkeypatch.setattr(messages, "_otherwise", messages._otherwise)

    def display(self, data: dict[str, str], **how: Any) -> Any:
        self.shown.append([data["text/html"]])
        return SimpleNamespace(update=lambda data, **how: self.shown[-1].append(data["text/html"]))


def test_a_kernel_hears_what_a_call_tells(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    kernel, clock = Kernel(monkeypatch), iter(range(100))
    monkeypatch.setattr(notebook.time, "monotonic", lambda: float(next(clock)))
    listens_in_notebooks()
    assert isinstance(messages.listener(), Notebook)
    messages.note(["a prefix"])
    with messages.listener().progress("sweep", unit=" blocks") as tell:
        for done in range(1, 5):
            tell(done, 4, below=["worst so far: <b>"])
    assert capsys.readouterr().out == "note: a prefix\n"
    [states] = kernel.shown
    assert states[0].startswith('<progress value="1" max="4"></progress> sweep: 1 of 4 blocks')
    assert "about 4 s left" in states[1]
    assert "worst so far: &lt;b&gt;" in states[0]
    assert states[-1] == "", "the bar is gone when the work is done"


def test_elsewhere_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    before = messages.listener()
    listens_in_notebooks()
    assert messages.listener() is before


def test_an_error_is_a_sentence_in_a_notebook() -> None:
    assert UsageError("limit is 0", remedy="give 1")._render_traceback_() == ["UsageError: limit is 0: give 1"]


def test_no_value_is_told_by_its_numbers() -> None:
    numbers = np.full((2, 3), 4.125)
    told = [
        brief(each) for each in (numbers, [numbers], {"a": numbers}, (1.5, 2), "x" * 99, len, np.float64(4.125))
    ]
    assert told[:2] == ["a ndarray of the shape [2, 3]", "a list of 1"]
    assert not any("4.125" in text for text in told[:3])
    assert max(map(len, told)) < 70
