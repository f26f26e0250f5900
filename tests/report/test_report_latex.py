"""Tables for papers. What pdflatex makes of them was looked at by hand; here their form is held."""

from __future__ import annotations

import re

import pytest
import report_samples as samples

from ckptswap.report.document import Document, Table, Written, document_latex
from ckptswap.report.latex import LONG, latex_cell, latex_text, to_latex
from ckptswap.report.rows import sections
from ckptswap.report.sweep import sweep_latex
from ckptswap.statistics import Interval
from ckptswap.sweep.run_folder.overwrite import is_export

RESULT = samples.sweep()


def cells(text: str) -> list[list[str]]:
    """The cells of each line of the tables."""
    lines = [line.strip().removesuffix(r"\\").strip() for line in text.splitlines() if line.endswith(r"\\")]
    return [re.split(r"(?<!\\)&", line) for line in lines if not line.startswith(r"\caption")]


def test_every_row_is_there_under_one_set_of_columns() -> None:
    tables = sweep_latex(RESULT).split(r"\toprule")[1:]
    for table, (_, rows) in zip(tables, sections(RESULT.rows), strict=True):
        head, *body = cells(table)
        assert len(body) == len(rows)
        assert {len(line) for line in body} == {len(head)}


@pytest.mark.parametrize("name", samples.HOSTILE)
def test_a_strangers_name_stays_in_its_cell(name: str) -> None:
    text = latex_text(name)
    bare = re.sub(r"\\(?:[a-z]+\{\}|[&%$#_{}])|\$(?:<|>|\||-|\\[a-z]+)\$", "", text)
    assert not set(bare) & set("\\{}$&%#_^~\n\x1b")
    assert bare.isprintable()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("+0.139", "$+0.139$"),
        ("-6e-06", r"$-6 \times 10^{-6}$"),
        ("1,296", "1,296"),
        ("10.4k", "10.4k"),
        ("encoder.0.conv-1", "encoder.0.conv-1"),
        ("1x-3y", "1x-3y"),
        ("–", "--"),
    ],
)
def test_numbers_are_mathematics_and_names_are_not(text: str, written: str) -> None:
    assert latex_cell(text) == written


def test_what_is_longer_than_a_page_goes_on_on_the_next() -> None:
    short, long = (to_latex(["n"], [[str(at)] for at in range(rows)], [True], "n") for rows in (LONG, LONG + 1))
    assert (r"\begin{tabular}{r}" in short, r"\begin{longtable}{r}" in long) == (True, True)


def test_a_documents_tables_have_intervals_and_their_notes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = (("conv.bias", Interval(0.5, 0.4, 0.6), Written("+0.50")), ("x", None, None))
    text = document_latex(
        Document("it", (), (Table("drops", ("kind", "share", "d"), rows, "Of 2."), Table("", (), ())))
    )
    assert cells(text)[1:] == [
        ["conv.bias ", r" 0.500 (0.400 \ldots{} 0.600) ", " $+0.50$"],
        ["x ", " -- ", " --"],
    ]
    assert r"\caption{drops. Of 2.}" in text
    (tmp_path / "t.tex").write_text(text)
    assert is_export(tmp_path / "t.tex"), "and may be replaced by a newer one"


def test_many_columns_stand_in_small_letters() -> None:
    for rows in (1, LONG + 1):
        text = to_latex(list("abcdefg"), [list("1234567")] * rows, [True] * 7, "n")
        assert text.index(r"\footnotesize") < text.index(r"\toprule")
        assert text.count("{") == text.count("}")
