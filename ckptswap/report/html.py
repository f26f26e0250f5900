"""A sweep as one self-contained page: the answer, pictures, findings, samples, every row, and where it comes from.

The page opens offline: plotly's script, ours and the styles are in it, and its policy lets it load nothing else,
and run no other script. `page.html.j2` escapes all text from files, which has gone through `safe` before; data for
the script is JSON in which no `<` is left.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from ckptswap.report import charts
from ckptswap.report.answer import change, taken, told
from ckptswap.report.interactive import figure
from ckptswap.report.rows import better, by_blocks, cell_key, facts, mode_words, samples_words, sections
from ckptswap.report.sweep import sweep_columns
from ckptswap.report.templates import template
from ckptswap.report.text import MISSING, finite, number
from ckptswap.shell import quoted
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.provenance import Provenance, load_provenance
from ckptswap.sweep.result import Row, SweepResult, goes_by_order, window_sizes
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.samples import Hit, Samples

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "script-src {scripts}"
)


@dataclass(frozen=True)
class About:
    """What a run's folder says beside its table: where it comes from, the samples that were hit worst (None where
    none were kept), all cells that it is to score, and the metric that it raced by."""

    origin: Provenance
    samples: Samples | None = None
    cells: tuple[Cell, ...] = ()
    raced_by: str | None = None

    def waiting(self, result: SweepResult) -> list[Cell]:
        """The cells that are not in the table yet."""
        known = {(row.place, row.kind, row.tensors, row.donor) for row in result.rows}
        return [cell for cell in self.cells if (cell.place, cell.kind, cell.names, cell.donor) not in known]


def about(run_dir: str) -> About:
    """Read it from a run folder. Raises `RunError` for a folder that is not a run's, or is damaged."""
    folder = RunFolder(run_dir)
    plan = folder.read_plan()
    raced_by = plan.race.metric if plan.race else None
    return About(load_provenance(run_dir), folder.load_samples(), plan.plan.cells, raced_by)


def sweep_html(result: SweepResult, about: About, top: int | None = None) -> str:
    """The page. `top` limits the table of rows to the worst so many of each section, and says so.

    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=())
    >>> page = sweep_html(result, About(Provenance("b", ("a",), {})))
    >>> page[:15], "Nothing is scored yet" in page
    ('<!doctype html>', True)
    """
    waiting, rows = about.waiting(result), shown_rows(result, top)
    pictures = list(_pictures(result, waiting, about.raced_by == result.metric))
    lines = {row: at for at, row in enumerate(rows)}
    figures = {shown.id: figure(shown.picture, lines) for shown in pictures}
    samples = samples_words(result).removesuffix(" samples")
    known = {result.metric: better(result), **facts(result), "samples": samples}
    known |= {
        f"also {other.name}": f"{better(other)}, baseline {number(other.baseline)}" for other in result.others
    }
    return _page(
        {"figures": figures} | row_commands(rows, about.origin),
        title=f"What {_stem(about.origin.recipient)} can take from {', '.join(map(_stem, about.origin.donors))}",
        answer=told(result, len(waiting)),
        result=result,
        facts=known,
        pictures=pictures,
        samples=about.samples,
        mode=mode_words(result),
        columns=[column for column in sweep_columns(result, rows, always_named=True) if column.is_in("page")],
        rows=rows,
        left_out=len(result.rows) - len(rows),
        origin=about.origin.facts,
        from_donor=lambda donor: _from_donor(result, donor),
        cell=lambda hit: _cell(result, hit),
        change=change,
        missing=MISSING,
    )


def shown_rows(result: SweepResult, top: int | None) -> list[Row]:
    """The rows of the table, section by section, of each the worst `top`."""
    every = [row for _, rows in sections(result.rows) for row in rows]
    return [row for row in every if top is None or (row.rank is not None and row.rank <= top)]


def _page(data: Mapping[str, Any], **content: Any) -> str:
    """The template, filled in; what is ours and no text is let through as it is."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    here = files("ckptswap.report")
    style, ours = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    scripts = (get_plotlyjs(), f"\n{ours}")
    # By these the policy knows the scripts of ours, and lets no other run, nor what hides in an attribute.
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    policy = POLICY.format(scripts=" ".join(f"'sha256-{digest}'" for digest in hashes))
    text = json.dumps(finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    inert = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # in a script element
    trusted = {"style": Markup(style), "data": Markup(inert), "scripts": [*map(Markup, scripts)]}
    return template("page.html.j2").render(policy=Markup(policy), **trusted, **content)


def _stem(path: str) -> str:
    return PurePath(path).name or path


@dataclass(frozen=True)
class _Shown:
    """A picture in the page: its element, its title, and what it shows in words."""

    id: str
    picture: charts.Picture
    title: str
    caption: str


_CAPTIONS = {
    "triangle": "What a run of blocks costs: its first block down, its last one across.",
    "pairs": "What two parts cost together, and on the diagonal each by itself.",
    "interactions": "Blue: two parts cost less together than the sum of each by itself; orange: more.",
    "curve": "What the network loses as layer after layer comes from the donor.",
    "heatmap": "Orange costs, blue helps, the stronger the more. = equal in both, · never read, × does not fit, "
    "! failed, u unused, … not scored yet; an empty place is no such cell. Layers in execution order.",
    "bars": "The worst drops with their simultaneous 95 % intervals.",
    "scatter": "Each cell's drop against how far apart the two networks' values are.",
    "depth": "The same drops by place in the network, a line a kind.",
    "paths": "The drop between recipient (0) and donor (1), with plain 95 % intervals.",
    "race": "How many samples each cell was scored on before the race had decided.",
    "scored": "How many samples each cell is scored on so far.",
}


def _pictures(result: SweepResult, waiting: Collection[Cell], is_race: bool) -> Iterator[_Shown]:
    """Those that this run has something for, donor by donor. Cells of `prefix` and `suffix` hold each other:
    none has a place of its own."""
    several = len(result.donors) > 1
    for at in range(max(1, len(result.donors))):
        part = replace(result, rows=tuple(row for row in result.rows if row.donor == at)) if several else result
        merged = by_blocks(part.rows)
        places = {cell_key(cell, merged=merged) for cell in waiting if cell.donor == at}
        drawn: dict[str, charts.Picture]
        if window_sizes(result.mode):
            drawn = {"triangle": charts.triangle(part), "bars": charts.bars(part)}
        elif result.mode == "lattice":
            drawn = {"pairs": charts.pairs(part), "interactions": charts.interactions(part)}
            drawn["bars"] = charts.bars(part)
        elif goes_by_order(result.mode):
            drawn = {"curve": charts.curve(part), "bars": charts.bars(part)}
        else:
            drawn = {"heatmap": charts.heat(part, places), "bars": charts.bars(part)}
            drawn |= {"scatter": charts.scatter(part), "depth": charts.depth(part)}
        drawn |= {"paths": charts.paths(part), "race" if is_race else "scored": charts.race(part, is_race)}
        for name, picture in drawn.items():
            if not charts.is_empty(picture):
                yield _Shown(f"{name}-{at}", picture, f"{picture.title}{_from_donor(result, at)}", _CAPTIONS[name])


def _from_donor(result: SweepResult, donor: int) -> str:
    return f", from {result.donors[donor].path}" if len(result.donors) > 1 else ""


def _cell(result: SweepResult, hit: Hit) -> str:
    layer = "" if hit.layer is None else hit.layer or "(root)"
    cell = " ".join(filter(None, (layer, hit.kind)))
    return taken(result.mode, cell) if cell else "the whole selection"


def row_commands(rows: Sequence[Row], origin: Provenance) -> dict[str, Any]:
    """What the copy buttons need: the beginning of each donor's command, the tensors' names as words of a shell,
    and for each row the donor and its words as runs (first, how many, …); none where no command can be.

    The longest rows come first, so that the many that take nearly all, or one layer more each, are a few runs.
    """
    names = dict.fromkeys(name for row in sorted(rows, key=lambda row: -len(row.tensors)) for name in row.tensors)
    words = {name: at for at, name in enumerate(names)}
    runs = [_runs(words[name] for name in row.tensors) if _has_command(row, origin) else None for row in rows]
    return {
        "starts": [origin.transplant(at) for at in range(len(origin.donors))],
        "words": [quoted(f"={name}") for name in words],
        "rows": runs,
        "donors": [row.donor for row in rows],
    }


def _runs(places: Iterable[int]) -> list[int]:
    """Where each run begins and how long it is.

    >>> _runs([4, 5, 6, 0, 1])
    [4, 3, 0, 2]
    """
    runs: list[int] = []
    for place in places:
        if runs and place == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += [place, 1]
    return runs


def _has_command(row: Row, origin: Provenance) -> bool:
    """What holds control characters is nothing to paste into a terminal."""
    if row.status == "mismatch" or not row.tensors or row.donor >= len(origin.donors):
        return False
    words = (origin.recipient, origin.donors[row.donor], *row.tensors)
    return origin.transplant(row.donor) is not None and all(word.isprintable() for word in words)
