"""Several runs as one self-contained page: what costs most on the mean, pictures of the means, every cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptswap.report import charts
from ckptswap.report.agreement import agreement_document
from ckptswap.report.document import cell_text
from ckptswap.report.drawing import LONG, SHAPES, drawn
from ckptswap.report.html import CAP, filled
from ckptswap.report.page_pictures import Shown
from ckptswap.report.pictures import means_of, short_names

if TYPE_CHECKING:
    from ckptswap.sweep.agreement import Agreement

_CAPTIONS = {
    "heatmap": "Means over runs. Orange costs, blue helps, the stronger the more; 2/3: known of 2 of 3 runs; "
    "= equal in both, · never read, × does not fit, ! failed; an empty place is no such cell.",
    "bars": "The largest means with Student's 95 % intervals over runs.",
    "depth": "The same means by place in the network, a line a kind.",
}


def runs_html(compared: Agreement, top: int | None = None) -> str:
    """The page; `top` limits the table to so many cells, and says so."""
    document = agreement_document(compared, top, short_names(list(compared.runs)))
    runs, cells, ranks = document.tables
    notes = document.lead[document.answer :]
    return filled(
        "runs.html.j2",
        {"starts": [], "words": [], "rows": [], "donors": []},
        title=document.title,
        lead=document.lead[: document.answer],
        notes=notes,
        pictures=list(_pictures(compared)),
        cells=cells,
        others=[ranks, runs],
        cap=CAP,
        long=LONG,
        shapes=SHAPES,
        cell=cell_text,
    )


def _pictures(compared: Agreement) -> Iterator[Shown]:
    for name, caption in _CAPTIONS.items():
        picture = means_of(compared, name)
        if isinstance(picture, charts.Chart) and picture.form == "bars":  # the runs' own drops are in the table
            picture = replace(picture, series=(replace(picture.series[0], name="drop", rows=()),))
        if not charts.is_empty(picture):
            yield Shown(f"{name}-0", drawn(picture), picture.title, caption, is_first=True)
