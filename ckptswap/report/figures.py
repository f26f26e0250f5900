"""Pictures for papers, by matplotlib (the extra `plot`): png, svg or pdf, the same bytes each time."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptswap.errors import DependencyError, UsageError
from ckptswap.report.axes import PanelSize, drawn, laid_out
from ckptswap.report.charts import Picture
from ckptswap.report.lettering import FONT, SIZES, plain, wrapped
from ckptswap.report.text import safe

HIGHEST = 9.5  # inches that a page has
FORMS = ("png", "svg", "pdf")
WIDTHS = {"column": 3.5, "page": 7.0}
"""Inches of a column, and of the text, on a page of two columns."""
NARROWEST, WIDEST = 2.0, 40.0  # inches
_MARKS: dict[str, Any] = {
    "png": {"Software": "ckptswap"},
    "svg": {"Title": "ckptswap", "Date": None},
    "pdf": {"Creator": "ckptswap", "CreationDate": None},
}
"""By these a picture is known to be ours, and may be replaced by a newer one."""
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "ckptswap", "svg.fonttype": "none",
    "pdf.fonttype": 42, "ps.fonttype": 42,  # letters as letters, which publishers ask for
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "axes.unicode_minus": True,
}  # fmt: skip


def form_of(path: str) -> str:
    """Which form a file name asks for; raises `UsageError` for another ending.

    >>> form_of("drops.svg")
    'svg'
    """
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in FORMS:
        endings = ", ".join(f".{form}" for form in FORMS)
        raise UsageError(f"{path} says no form of picture", remedy=f"end it with {endings}")
    return ending


def width_of(width: str | float | None) -> float | None:
    """Inches, of a column or a page's text by their names; None is for what a picture needs, a page at the most.

    Raises `UsageError` for what is no width.

    >>> width_of("column"), width_of("5.5"), width_of(None)
    (3.5, 5.5, None)
    """
    if width is None or width in WIDTHS:
        return None if width is None else WIDTHS[str(width)]
    try:
        inches = float(width)
    except ValueError:
        inches = 0.0
    if not NARROWEST <= inches <= WIDEST:
        remedy = f"use column (3.5 inches), page (7), or inches from {NARROWEST:g} to {WIDEST:g}"
        raise UsageError(f"--width is {width!r:.40}", remedy=remedy)
    return inches


def size_of(panels: Sequence[Picture], width: float | None = None) -> tuple[float, float]:
    """How wide and high the picture is, in inches. Raises `DependencyError` as `draw`."""
    _matplotlib()
    sizes = _sizes(panels, width)
    return sum(size.width for size in sizes), max(size.height for size in sizes)


def _sizes(panels: Sequence[Picture], width: float | None) -> list[PanelSize]:
    room = (WIDTHS["page"] if width is None else width) / len(panels)
    return [laid_out(panel, room, is_fixed=width is not None) for panel in panels]


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise DependencyError("pictures need matplotlib", remedy="pip install 'ckptswap[plot]'") from None
    return matplotlib


def draw(panels: Sequence[Picture], form: str, *, width: float | None = None, title: str | None = None) -> bytes:
    """Panels side by side, `width` inches wide in all; with a `title` of one's own, which may be empty. Raises
    `DependencyError` without matplotlib."""
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context({**_STYLE, "font.size": SIZES[0], "font.family": FONT}):
        layouts, size = _sizes(panels, width), size_of(panels, width)
        engine: Any = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
        figure = Figure(figsize=size, layout=engine)
        FigureCanvasAgg(figure)
        parts = figure.subfigures(1, len(panels), squeeze=False, width_ratios=[each.width for each in layouts])[0]
        for panel, layout, part in zip(panels, layouts, parts, strict=True):
            words = safe(panel.title if title is None or len(panels) > 1 else title)
            if words:
                part.suptitle(plain(wrapped(words, SIZES[0] + 1, layout.width - 0.2)), fontsize=SIZES[0] + 1)
            drawn(part, panel, layout)
        if title and len(panels) > 1:
            figure.suptitle(plain(wrapped(safe(title), SIZES[0] + 1, size[0] - 0.2)), fontsize=SIZES[0] + 1)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=300, metadata=_MARKS[form])
        return out.getvalue()
