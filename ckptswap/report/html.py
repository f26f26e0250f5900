"""A sweep as one self-contained page: the answer, pictures, findings, samples, every row, and where it comes from.

The page opens offline: plotly's script, ours and the styles are in it, and its policy lets it load nothing else.
All text from files goes through `safe` and `html.escape`; data for the script is JSON in which no `<` is left.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ckptswap.report import charts
from ckptswap.report.answer import answer
from ckptswap.report.html_rows import css_class, escaped, row_commands, rows_table
from ckptswap.report.interactive import figure
from ckptswap.report.text import MISSING, fixed, named, number, safe

if TYPE_CHECKING:
    from ckptswap.sweep.facts import Origin
    from ckptswap.sweep.result import Finding, SweepResult
    from ckptswap.sweep.samples import Hit

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class About:
    """What a run's folder says beside its table: where it comes from, the samples that were hit worst (None where
    none were kept)."""

    origin: Origin
    samples: tuple[Hit, ...] | None = None


def about(run_dir: str) -> About:
    """Read it from a run folder. Raises `RunError` for a folder that is no run, or is damaged."""
    from ckptswap.sweep.facts import load_origin
    from ckptswap.sweep.samples import load_samples

    return About(load_origin(run_dir), load_samples(run_dir))


def sweep_html(result: SweepResult, about: About, top: int | None = None) -> str:
    """The page. `top` limits the table of rows to the worst so many of each section, and says so.

    >>> from ckptswap.sweep.facts import Origin
    >>> from ckptswap.sweep.result import SweepResult
    >>> page = sweep_html(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()), About(Origin("b", ("a",), {})))
    >>> page[:15], "nothing is measured yet" in page
    ('<!doctype html>', True)
    """
    pictures = list(_pictures(result))
    body = "\n".join(
        [
            _header(result, about.origin),
            _section("Findings", "findings", "\n".join(map(_finding, result.findings)) if result.findings else ""),
            _section("Pictures", "pictures", "\n".join(_figure(each) for each in pictures)),
            _section("Worst-hit samples", "samples", _samples(result, about.samples)),
            _section("Every row", "rows", rows_table(result, about.origin, top)),
            _section("Where it comes from", "origin", _facts(about.origin)),
        ]
    )
    data = {"figures": {each.id: figure(each.picture) for each in pictures}, **row_commands(result, about.origin)}
    return _page(_title(about.origin), body, data)


def _page(title: str, body: str, data: Mapping[str, Any]) -> str:
    from plotly.offline import get_plotlyjs

    here = files("ckptswap.report")
    style, script = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
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
<script>{get_plotlyjs()}</script>
<script>
{script}</script>
</body>
</html>
"""


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


def _title(origin: Origin) -> str:
    donors = ", ".join(_stem(each) for each in origin.donors)
    return f"What {_stem(origin.recipient)} can take from {donors}"


def _stem(path: str) -> str:
    return PurePath(path).name or path


def _header(result: SweepResult, origin: Origin) -> str:
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
    sentences = " ".join(answer(result))
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


_CAPTIONS: dict[str, tuple[Callable[[SweepResult], charts.Picture], str]] = {
    "curve": (charts.curve, "What the network loses as layer after layer comes from the donor."),
    "heatmap": (
        charts.heat,
        "Orange costs, blue helps, pale is near zero. = equal in both, · never read, × does not fit, ! failed; an "
        "empty place is no such cell. Layers in execution order.",
    ),
    "bars": (charts.bars, "The worst drops with their simultaneous 95 % intervals."),
    "scatter": (charts.scatter, "Each cell's drop against how far apart the two networks' values are."),
    "depth": (charts.depth, "The same drops by place in the network, a line a kind."),
    "paths": (charts.paths, "The drop between recipient (0) and donor (1), with plain 95 % intervals."),
    "race": (charts.race, "How many samples each cell was scored on before the race had decided."),
}


def _pictures(result: SweepResult) -> Iterator[_Shown]:
    """Those that this run has something for, donor by donor."""
    several = len(result.donors) > 1
    for at in range(max(1, len(result.donors))):
        part = replace(result, rows=tuple(row for row in result.rows if row.donor == at)) if several else result
        for name, (draw, caption) in _CAPTIONS.items():
            if result.mode in ("prefix", "suffix") and name in ("heatmap", "depth", "scatter"):
                continue  # cells that hold each other have no place of their own
            picture = draw(part)
            if not charts.is_empty(picture):
                yield _Shown(f"{name}-{at}", picture, caption, result.donors[at].path if several else "")


def _figure(shown: _Shown) -> str:
    title = f"{shown.picture.title}{f', from {shown.donor}' if shown.donor else ''}"
    behind = _matrix(shown.picture) if isinstance(shown.picture, charts.Heat) else ""
    return (
        f'<figure>\n<h3>{escaped(title)}</h3>\n<div class="plot" id="{shown.id}" role="img" '
        f'aria-label="{escaped(title)}: {escaped(shown.caption)} The numbers are in the table below."></div>\n'
        f"<figcaption>{escaped(shown.caption)}</figcaption>\n{behind}</figure>"
    )


def _matrix(heat: charts.Heat) -> str:
    """The heatmap as a table, for whoever cannot see it."""
    head = "".join(f'<th scope="col">{escaped(column)}</th>' for column in heat.columns)
    lines = []
    for name, values, said in zip(heat.rows, heat.values, heat.said, strict=True):
        shown = (
            fixed(value, 4, signed=True) if value is not None else word
            for value, word in zip(values, said, strict=True)
        )
        cells = "".join(f"<td>{escaped(word)}</td>" for word in shown)
        lines.append(f'<tr><th scope="row">{escaped(name)}</th>{cells}</tr>')
    return (
        "<details><summary>the heatmap as a table</summary><div class=wide><table>"
        f"<thead><tr><th scope=col>layer</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        "</details>"
    )


# Samples ---------------------------------------------------------------------------------------------------------


def _samples(result: SweepResult, hits: Sequence[Hit] | None) -> str:
    if hits is None:
        return (
            "<p class=quiet>This run kept none: the same <code>ckptswap sweep</code> again keeps them where "
            "the task is about images.</p>"
        )
    return "\n".join(_hit(result, hit) for hit in hits)


def _hit(result: SweepResult, hit: Hit) -> str:
    """One sample, from left to right: input, truth, baseline, variant."""
    names = [named(hit.layer) if hit.layer is not None else "", safe(hit.kind or "")]
    cell = " ".join(name for name in names if name) or "the whole selection"
    captions = {
        "input": "input",
        "truth": "truth",
        "baseline": f"baseline {number(hit.baseline)}",
        "variant": f"variant {number(hit.variant)}",
    }
    pictures = "".join(
        f'<figure class="tile"><img src="{html.escape(hit.pictures[name])}" alt="{name} of sample {hit.sample}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
        for name, caption in captions.items()
        if name in hit.pictures
    )
    donor = f", from {escaped(result.donors[hit.donor].path)}" if len(result.donors) > 1 else ""
    said = f"{html.escape(cell)}{donor}: sample {hit.sample}, a drop of {number(hit.drop, signed=True)}"
    return f'<div class="strip"><p>{said}</p><div class="tiles-of-images">{pictures}</div></div>'


# Where it comes from -------------------------------------------------------------------------------------------


def _facts(origin: Origin) -> str:
    shown = {name: MISSING if value is None else value for name, value in origin.facts.items()}
    lines = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td><code>{escaped(value)}</code></td></tr>'
        for name, value in shown.items()
    )
    return f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>'
