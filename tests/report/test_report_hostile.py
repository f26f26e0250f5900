"""Names from a stranger's file, in every place where a name is shown, in every form that we write."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import report_samples as samples
from report_samples import findings_text, heatmap, kind_summary
from rich.cells import cell_len

from ckptswap.report.checkpoint import show_csv, show_md, show_table
from ckptswap.report.diff import diff_csv, diff_md, diff_table, threeway_table
from ckptswap.report.evaluate import evaluate_csv, evaluate_md, evaluate_table
from ckptswap.report.explain import explain_table
from ckptswap.report.plan import plan_table
from ckptswap.report.screen import sweep_table
from ckptswap.report.sweep import sweep_csv, sweep_json, sweep_md
from ckptswap.report.text import Style, dump_json

Rename = Callable[[str], str]
TERMINAL: dict[str, Callable[[Rename, Style], str]] = {
    "sweep": lambda rename, style: sweep_table(samples.sweep(rename=rename), style),
    "heatmap": lambda rename, style: heatmap(samples.sweep(rename=rename), style),
    "kinds": lambda rename, style: kind_summary(samples.sweep(rename=rename), style),
    "findings": lambda rename, style: findings_text(samples.sweep(rename=rename), style),
    "show": lambda rename, style: show_table(samples.show(stats=True, rename=rename), style),
    "diff": lambda rename, style: diff_table(samples.diff(rename), style, every=True),
    "diff-by": lambda rename, style: diff_table(samples.grouped(rename), style),
    "evaluate": lambda rename, style: evaluate_table(samples.evaluate(rename), style),
    "explain": lambda rename, style: explain_table(samples.explain(rename), style),
    "threeway": lambda rename, style: threeway_table(samples.threeway(rename), style, every=True),
    "plan": lambda rename, style: plan_table(samples.plan(rename), style),
}
CSV: dict[str, Callable[[Rename], str]] = {
    "sweep": lambda rename: sweep_csv(samples.sweep(rename=rename)),
    "show": lambda rename: show_csv(samples.show(rename=rename)),
    "diff": lambda rename: diff_csv(samples.diff(rename)),
    "evaluate": lambda rename: evaluate_csv(samples.evaluate(rename)),
}
MD: dict[str, Callable[[Rename], str]] = {
    "sweep": lambda rename: sweep_md(samples.sweep(rename=rename)),
    "show": lambda rename: show_md(samples.show(rename=rename)),
    "diff": lambda rename: diff_md(samples.diff(rename), every=True),
    "evaluate": lambda rename: evaluate_md(samples.evaluate(rename)),
}
JSON: dict[str, Callable[[Rename], dict[str, Any]]] = {
    "sweep": lambda rename: sweep_json(samples.sweep(rename=rename)),
    "show": lambda rename: samples.show(rename=rename),
    "diff": samples.diff,
    "evaluate": samples.evaluate,
    "explain": samples.explain,
}
STYLES = [Style(80), Style(1000), Style(80, colour=True), Style(80, ascii=True), Style(40)]
SGR = re.compile(r"\x1b\[[0-9;]*m")


def cycling() -> Rename:
    """Each name becomes the next hostile one, the same one each time."""
    names: dict[str, str] = {}
    supply = itertools.cycle(samples.HOSTILE)
    return lambda name: names.setdefault(name, next(supply))


def suffixed(bad: str) -> Rename:
    return lambda name: name + bad


def is_tame(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text.replace("\n", ""))


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("name", TERMINAL)
def test_nothing_moves_the_cursor_or_leaves_the_width(name: str, style: Style) -> None:
    text = SGR.sub("", TERMINAL[name](cycling(), style))
    assert is_tame(text)
    assert text.isascii() or not style.ascii
    assert max(map(cell_len, text.splitlines())) <= style.width


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("name", TERMINAL)
def test_names_without_end_are_cut(name: str, style: Style) -> None:
    text = SGR.sub("", TERMINAL[name](lambda known: known + "层x" * 200, style))
    assert max(map(cell_len, text.splitlines())) <= style.width or style.width > 400


@pytest.mark.parametrize("name", sorted(set(TERMINAL) - {"heatmap"}))
def test_colour_adds_nothing_but_colour(name: str) -> None:
    coloured = TERMINAL[name](cycling(), Style(120, colour=True))
    plain = TERMINAL[name](cycling(), Style(120))
    stripped = "".join(line.rstrip() + "\n" for line in SGR.sub("", coloured).splitlines())
    assert "\x1b" in coloured
    assert stripped == plain


@pytest.mark.parametrize("bad", samples.HOSTILE[:-2])
@pytest.mark.parametrize("name", sorted(set(TERMINAL) - {"heatmap"}))
def test_no_name_adds_a_line(name: str, bad: str) -> None:
    lines = TERMINAL[name](suffixed(bad), Style(1000)).splitlines()
    assert len(lines) == len(TERMINAL[name](samples.same, Style(1000)).splitlines())


@pytest.mark.parametrize("name", TERMINAL)
def test_markup_is_text(name: str) -> None:
    assert "[red]" in TERMINAL[name](lambda _: "[red]", Style(200))


@pytest.mark.parametrize("bad", samples.HOSTILE)
@pytest.mark.parametrize("name", CSV)
def test_csv_keeps_its_grid(name: str, bad: str) -> None:
    text = CSV[name](suffixed(bad))
    rows, tame = (list(csv.reader(io.StringIO(each))) for each in (text, CSV[name](samples.same)))
    assert [len(row) for row in rows] == [len(row) for row in tame]
    assert is_tame(text)


@pytest.mark.parametrize("name", CSV)
def test_csv_holds_no_formula(name: str) -> None:
    cells = [cell for row in csv.reader(io.StringIO(CSV[name](lambda _: "=1+1"))) for cell in row]
    assert "'=1+1" in cells
    assert not any(cell.startswith(("=", "@")) for cell in cells)


@pytest.mark.parametrize("bad", samples.HOSTILE)
@pytest.mark.parametrize("name", MD)
def test_md_keeps_its_grid_and_holds_no_markup(name: str, bad: str) -> None:
    lines, tame = (text.splitlines() for text in (MD[name](suffixed(bad)), MD[name](samples.same)))
    assert [line.count("|") for line in lines] == [line.count("|") for line in tame]
    assert not re.search(r"[<`\[]", "".join(lines).replace("[1, 16", "").replace("[2, 16", ""))
    assert is_tame("".join(lines))


@pytest.mark.parametrize("name", JSON)
def test_json_keeps_names_exactly_and_is_plain_ascii(name: str) -> None:
    data = JSON[name](cycling())
    text = dump_json(data)
    assert json.loads(text) == data
    assert text.isascii()
    assert is_tame(text)
    assert "\x7f" not in text
