"""What a terminal shows, letter by letter, at 80 and 160 columns; UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import report_samples as samples
from report_samples import findings_text, heatmap, kind_summary
from rich.cells import cell_len

from ckptswap.report.checkpoint import show_table
from ckptswap.report.diff import diff_table
from ckptswap.report.evaluate import evaluate_table
from ckptswap.report.explain import explain_table
from ckptswap.report.screen import sweep_summary, sweep_table
from ckptswap.report.text import Style

DEEP = "encoder.layer{}.0.conv{}"
RENDERERS: dict[str, Callable[[Style], str]] = {
    "sweep": lambda style: sweep_table(samples.sweep(DEEP), style),
    "sweep-top": lambda style: sweep_table(samples.sweep(), style, top=3),
    "sweep-several": lambda style: sweep_summary(samples.several(), style, 3),
    "heatmap": lambda style: heatmap(samples.sweep(DEEP), style),
    "kinds": lambda style: kind_summary(samples.sweep(), style),
    "findings": lambda style: findings_text(samples.sweep(), style),
    "show": lambda style: show_table(samples.show(), style),
    "show-stats": lambda style: show_table(samples.show(stats=True), style),
    "diff": lambda style: diff_table(samples.diff(), style),
    "diff-every": lambda style: diff_table(samples.diff(), style, every=True),
    "diff-by-layer": lambda style: diff_table(samples.grouped(), style),
    "evaluate": lambda style: evaluate_table(samples.evaluate(), style),
    "explain": lambda style: explain_table(samples.explain(), style),
}
STYLES = {"80": Style(80), "160": Style(160), "80-ascii": Style(80, ascii=True)}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", RENDERERS)
def test_terminal_output_is_the_golden_one_and_fits(
    name: str, style: str, golden: Callable[[str, str], None]
) -> None:
    text = RENDERERS[name](STYLES[style])
    golden(f"{name}-{style}", text)
    assert max(cell_len(line) for line in text.splitlines()) <= STYLES[style].width
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert text.isascii() or not STYLES[style].ascii


def test_heatmap_in_colour(golden: Callable[[str, str], None]) -> None:
    golden("heatmap-80-colour", heatmap(samples.sweep(), Style(80, colour=True)))


def test_diff_in_colour(golden: Callable[[str, str], None]) -> None:
    golden("diff-80-colour", diff_table(samples.diff(), Style(80, colour=True)))
