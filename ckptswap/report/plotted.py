"""A picture of a sweep as a value: a notebook shows it, and it can be saved."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ckptswap.errors import UsageError, brief
from ckptswap.formats.atomic import put
from ckptswap.report import charts, figures
from ckptswap.report.charts import Picture
from ckptswap.report.pictures import PICTURES, picture_of
from ckptswap.sweep.result import SweepResult

Name = Literal["heatmap", "bars", "depth", "scatter"]


@dataclass(frozen=True, repr=False)
class Plotted:
    """Drawn as png when it is shown, and in any of the forms when it is saved."""

    picture: Picture

    def __repr__(self) -> str:
        return f"<{self.picture.title}>"

    def _repr_png_(self) -> bytes:
        """Small enough for a notebook, which keeps it: half as large as the file for a paper, in few colours."""
        from PIL import Image  # which only this needs

        image = Image.open(io.BytesIO(figures.draw([self.picture], "png"))).convert("RGB")
        small = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).quantize(64)
        small.save(out := io.BytesIO(), "png", optimize=True)
        return out.getvalue()

    def save(self, out: str | os.PathLike[str]) -> Path:
        """Write it as png, svg or pdf, by the ending. Raises `UsageError` for another ending, and `FileError`."""
        form = figures.form_of(os.fspath(out))
        put(figures.draw([self.picture], form), out)
        return Path(out)


def plotted(result: SweepResult, picture: Name = "heatmap") -> Plotted:
    """Draw what a sweep found: a heatmap of layer × kind, bars of the worst, drops by depth, or against distances.

    Raises `UsageError` where there is no such picture, or nothing for it, and `DependencyError` without the extra
    'plot'.
    """
    if picture not in PICTURES:
        raise UsageError(f"there is no picture {brief(picture)}", remedy=f"use {', '.join(PICTURES)}")
    drawn = picture_of(result, picture)
    if charts.is_empty(drawn):
        raise UsageError(
            f"there is nothing for a {picture}", remedy="sweep by layer,kind, or choose another picture"
        )
    figures.draw([drawn], "svg")  # what is wrong with it is told here, not when it is shown
    return Plotted(drawn)
