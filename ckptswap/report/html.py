"""A sweep as one self-contained page: the answer, pictures, findings, samples, every row, and where it comes from.

The page opens offline: plotly's script, ours and the styles are in it, and its policy lets it load nothing else,
and run no other script.
All text from files goes through `safe` and `html.escape`; data for the script is JSON in which no `<` is left.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ckptswap.report import charts
from ckptswap.report.answer import answer, change, taken
from ckptswap.report.heatmap import Key
from ckptswap.report.html_rows import css_class, escaped, row_commands, rows_table, shown_rows
from ckptswap.report.interactive import figure
from ckptswap.report.sweep import MODES
from ckptswap.report.text import MISSING, number

if TYPE_CHECKING:
    from ckptswap.sweep.plan import Cell
    from ckptswap.sweep.provenance import Provenance
    from ckptswap.sweep.result import Finding, SweepResult
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
        """The cells that have no row yet."""
        known = {(row.layer, row.kind, row.tensors, row.donor) for row in result.rows}
        return [cell for cell in self.cells if (cell.layer, cell.kind, cell.names, cell.donor) not in known]


def about(run_dir: str) -> About:
    """Read it from a run folder. Raises `RunError` for a folder that is no run, or is damaged."""
    from ckptswap.errors import RunError
    from ckptswap.sweep.plan import Plan
    from ckptswap.sweep.provenance import load_origin
    from ckptswap.sweep.run_folder.journal import read_plan
    from ckptswap.sweep.run_folder.samples import load_samples

    origin, contents = load_origin(run_dir), read_plan(Path(run_dir))
    try:
        cells, race = Plan.from_json(contents["plan"]).cells, contents.get("race")
        return About(origin, load_samples(run_dir), cells, race["metric"] if race else None)
    except (KeyError, TypeError) as error:
        raise RunError(f"{run_dir} holds a damaged plan ({error!r})", remedy="run the sweep again") from None


def sweep_html(result: SweepResult, about: About, top: int | None = None) -> str:
    """The page. `top` limits the table of rows to the worst so many of each section, and says so.

    >>> from ckptswap.sweep.provenance import Provenance
    >>> from ckptswap.sweep.result import SweepResult
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=())
    >>> page = sweep_html(result, About(Provenance("b", ("a",), {})))
    >>> page[:15], "Nothing is scored yet" in page
    ('<!doctype html>', True)
    """
    waiting, rows = about.waiting(result), shown_rows(result, top)
    pictures = list(_pictures(result, waiting, about.raced_by == result.metric))
    body = "\n".join(
        [
            _header(result, about.origin, len(waiting)),
            _section("Findings", "findings", "\n".join(map(_finding, result.findings)) if result.findings else ""),
            _section("Pictures", "pictures", "\n".join(_figure(each) for each in pictures)),
            _section("Worst-hit samples", "samples", _samples(result, about.samples)),
            _section("Every row", "rows", _mode(result) + rows_table(result, rows)),
            _section("Where it comes from", "origin", _facts(about.origin)),
        ]
    )
    lines = {row: at for at, row in enumerate(rows)}
    figures = {each.id: figure(each.picture, lines) for each in pictures}
    data = {"figures": figures, **row_commands(rows, about.origin)}
    return _page(_title(about.origin), body, data)


def _page(title: str, body: str, data: Mapping[str, Any]) -> str:
    from plotly.offline import get_plotlyjs

    here = files("ckptswap.report")
    style, ours = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    scripts = (get_plotlyjs(), f"\n{ours}")
    policy = POLICY.format(scripts=" ".join(map(_hash, scripts)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="ckptswap">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#rows">to the table</a>
<button id="theme" type="button" title="light or dark" aria-label="switch between light and dark">◐</button>
<main>
{body}
</main>
<script type="application/json" id="data">{_json(data)}</script>
{"".join(f"<script>{each}</script>" for each in scripts)}
</body>
</html>
"""


def _hash(script: str) -> str:
    """By which the policy knows a script of ours, and lets no other run, nor what hides in an attribute."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(data: Mapping[str, Any]) -> str:
    """JSON that is safe inside a script element; what is not finite is null."""
    from ckptswap.report.text import finite

    text = json.dumps(finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(title: str, anchor: str, content: str) -> str:
    if not content:
        return ""
    head = f'<h2 id="{anchor}-title">{title}</h2>'
    return f'<section id="{anchor}" aria-labelledby="{anchor}-title">\n{head}\n{content}\n</section>'


# The answer ------------------------------------------------------------------------------------------------------


def _title(origin: Provenance) -> str:
    donors = ", ".join(_stem(each) for each in origin.donors)
    return f"What {_stem(origin.recipient)} can take from {donors}"


def _stem(path: str) -> str:
    return PurePath(path).name or path


def _header(result: SweepResult, origin: Provenance, waiting: int) -> str:
    facts = {
        result.metric: f"{'higher' if result.direction == 'max' else 'lower'} is better",
        "baseline": number(result.baseline),
        "donor": ", ".join(number(each.score) for each in result.donors) or number(result.donor_score),
        "tolerance": number(result.tolerance),
        "samples": f"{result.samples:,}",
    }
    if result.recalibrated_baseline is not None:
        facts["recalibrated baseline"] = number(result.recalibrated_baseline)
    tiles = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts.items()
    )
    notes = "".join(f"<li>{escaped(note)}</li>" for note in result.notes)
    sentences = " ".join(answer(result, waiting))
    return (
        f'<header>\n<h1>{escaped(_title(origin))}</h1>\n<p class="answer">{escaped(sentences)}</p>\n'
        f'<dl class="tiles">{tiles}</dl>\n{f"<ul class=notes>{notes}</ul>" if notes else ""}\n</header>'
    )


def _finding(finding: Finding) -> str:
    numbers = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{number(value)}</dd></div>" for name, value in finding.numbers.items()
    )
    return f"""<article class="finding">
<p><span class="verdict {css_class(finding.verdict)}">{escaped(finding.verdict)}</span> {escaped(finding.text)}</p>
<details><summary>rule and numbers</summary>
<p>{escaped(finding.rule)}</p>
<dl class="tiles small">{numbers}</dl></details>
</article>"""


# Pictures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shown:
    """A picture in the page: its element, what it shows in words, and the donor where there are several."""

    id: str
    picture: charts.Picture
    caption: str
    donor: str = ""


_CAPTIONS = {
    "curve": "What the network loses as layer after layer comes from the donor.",
    "heatmap": "Orange costs, blue helps, the stronger the more. = equal in both, · never read, × does not fit, "
    "! failed, … not scored yet; an empty place is no such cell. Layers in execution order.",
    "bars": "The worst drops with their simultaneous 95 % intervals.",
    "scatter": "Each cell's drop against how far apart the two networks' values are.",
    "depth": "The same drops by place in the network, a line a kind.",
    "paths": "The drop between recipient (0) and donor (1), with plain 95 % intervals.",
    "race": "How many samples each cell was scored on before the race had decided.",
    "scored": "How many samples each cell is scored on so far.",
}


def _pictures(result: SweepResult, waiting: Collection[Cell], is_race: bool) -> Iterator[_Shown]:
    """Those that this run has something for, donor by donor."""
    several = len(result.donors) > 1
    for at in range(max(1, len(result.donors))):
        part = replace(result, rows=tuple(row for row in result.rows if row.donor == at)) if several else result
        places = {(cell.layer, cell.kind) for cell in waiting if cell.donor == at}
        for name, draw in _draws(result, places, is_race).items():
            picture = draw(part)
            if not charts.is_empty(picture):
                yield _Shown(f"{name}-{at}", picture, _CAPTIONS[name], result.donors[at].path if several else "")


def _draws(
    result: SweepResult, waiting: Collection[Key], is_race: bool
) -> dict[str, Callable[[SweepResult], charts.Picture]]:
    """The pictures by their names. Of `prefix` and `suffix`, whose cells hold each other, none has a place of its
    own."""
    placed: dict[str, Callable[[SweepResult], charts.Picture]] = {
        "heatmap": lambda part: charts.heat(part, waiting),
        "bars": charts.bars,
        "scatter": charts.scatter,
        "depth": charts.depth,
    }
    if result.mode in ("prefix", "suffix"):
        placed = {"curve": charts.curve, "bars": charts.bars}
    last = "race" if is_race else "scored"
    return {**placed, "paths": charts.paths, last: lambda part: charts.race(part, is_race)}


def _figure(shown: _Shown) -> str:
    """A group, not an image: plotly's buttons are in it."""
    title = f"{shown.picture.title}{f', from {shown.donor}' if shown.donor else ''}"
    table = f'<details data-of="{shown.id}"><summary>the heatmap as a table</summary></details>\n'
    return (
        f'<figure>\n<h3>{escaped(title)}</h3>\n<div class="plot" id="{shown.id}" role="group" '
        f'aria-label="{escaped(title)}: {escaped(shown.caption)} The numbers are in the table below."></div>\n'
        f"<figcaption>{escaped(shown.caption)}</figcaption>\n"
        f"{table if isinstance(shown.picture, charts.Heat) else ''}</figure>"
    )


def _mode(result: SweepResult) -> str:
    """A line above the table, where a row takes something else than itself."""
    words = MODES[result.mode]
    return f"<p class=quiet>Each row: {words}.</p>\n" if words else ""


# Samples ---------------------------------------------------------------------------------------------------------


def _samples(result: SweepResult, kept: Samples | None) -> str:
    if kept is None:
        return (
            "<p class=quiet>This run kept none: the same <code>ckptswap sweep</code> again keeps them where "
            "the task is about images.</p>"
        )
    if kept.hits and kept.metric != result.metric:
        said = f"Those that were kept are the worst by {kept.metric}, this report is about {result.metric}."
        return f"<p class=quiet>{escaped(said)}</p>"
    return "\n".join(_hit(result, hit) for hit in kept.hits)


def _hit(result: SweepResult, hit: Hit) -> str:
    """One sample, from left to right: input, truth, baseline, variant."""
    captions = {
        "input": "input",
        "truth": "truth",
        "baseline": f"baseline {number(hit.baseline)}",
        "variant": f"variant {number(hit.variant)}",
    }
    pictures = "".join(
        f'<figure class="tile"><img src="{html.escape(hit.pictures[name])}" '
        f'alt="{escaped(f"{name} of sample {hit.sample}")}"><figcaption>{escaped(caption)}</figcaption></figure>'
        for name, caption in captions.items()
        if name in hit.pictures
    )
    donor = f", from {result.donors[hit.donor].path}" if len(result.donors) > 1 else ""
    said = f"{_cell(result, hit)}{donor}: sample {hit.sample}, {change(result, hit.drop)} in {result.metric}"
    return f'<div class="strip"><p>{escaped(said)}</p><div class="tiles-of-images">{pictures}</div></div>'


def _cell(result: SweepResult, hit: Hit) -> str:
    names = [hit.layer or "(root)" if hit.layer is not None else "", hit.kind or ""]
    cell = " ".join(name for name in names if name)
    return taken(result.mode, cell) if cell else "the whole selection"


# Where it comes from -------------------------------------------------------------------------------------------


def _facts(origin: Provenance) -> str:
    shown = {name: MISSING if value is None else value for name, value in origin.facts.items()}
    lines = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td><code>{escaped(value)}</code></td></tr>'
        for name, value in shown.items()
    )
    return f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>'
