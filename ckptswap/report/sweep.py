"""A sweep's columns, declared once; and the forms for programs and GitHub that are made of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from operator import attrgetter
from typing import Any

from rich.text import Text

from ckptswap.report.latex import columns_latex, tables_latex
from ckptswap.report.layout import BETTER, QUIET, WIDE, WIDEST, WORSE, Column, field
from ckptswap.report.rows import (
    better,
    distance,
    filtered_words,
    is_partial,
    is_recalibrated,
    largest_drop,
    own_names,
    samples_words,
    section_of,
    sections,
)
from ckptswap.report.tabular import columns_csv, columns_md, md_text
from ckptswap.report.text import MISSING, Style, bar, count, decimals, fixed, interval, named, number, plural, safe
from ckptswap.sweep.result import Finding, MetricScore, OtherMetric, Row, SweepResult, window_sizes

SCHEMA = "ckptswap.sweep/1"
LOOK = {
    "reusable": BETTER,
    "unused": f"dim {BETTER}",
    "sensitive": f"bold {WORSE}",
    "undecided": QUIET,
    "supported": f"bold {BETTER}",
    "not supported": f"bold {WORSE}",
}
NUMBERS = ("ci_low", "ci_high", "sim_low", "sim_high", "p_reusable", "p_sensitive")
_PROGRAMS = "json csv"
_PEOPLE = "narrow wide page latex"
_RANK: dict[str, Any] = {"field": "rank", "forms": "json csv md narrow wide page"}
"""A paper's table has its rows in that order, and no room."""


_PLACES = {"whole blocks": "block", "blocks and kinds": "block", "parts": "part", "parts and kinds": "part"}
"""What the place of a row is, where it is no layer."""


def name_columns(rows: Sequence[Row], *, always: bool = False) -> list[Column]:
    """What a row is called for people: layer (or its tensor's own name) and kind; of these, unless `always` both
    are wanted, those by which the rows differ."""
    names = dict(zip(map(id, rows), own_names(rows), strict=True))

    def layer(row: Row) -> str:
        return names[id(row)] or ("(all)" if row.place is None else named(row.place))

    columns = []
    if always or any(row.place is not None for row in rows) or all(row.kind is None for row in rows):
        titles = {_PLACES.get(section_of(row), "layer") for row in rows if row.place is not None}
        title = titles.pop() if len(titles) == 1 else "layer"
        columns.append(Column(title, layer, smallest=10, forms=_PEOPLE))
    if always or any(row.kind is not None for row in rows):  # bn.running_mean stays whole as long as it can
        room = 33 if any(len(row.parts) > 1 for row in rows) else 15
        columns.append(Column("kind", lambda row: safe(row.kind or "(all)"), smallest=room, forms=_PEOPLE))
    return columns


def sweep_columns(
    result: SweepResult, rows: Sequence[Row], style: Style = Style(WIDEST), *, always_named: bool = False
) -> list[Column]:
    """Every column of every form, in order. Numbers of one column have the same decimals, intervals the drop's.

    >>> columns = sweep_columns(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()), ())
    >>> " ".join(column.title for column in columns if column.is_in("wide"))
    '# layer numel RMSE score drop plain interval simultaneous  verdict'
    """
    digits = 3 if style.width < WIDE else 4
    drop = decimals((row.drop for row in rows), digits)
    signed = partial(fixed, places=drop, signed=True)
    return [
        Column("#", lambda row: Text(str(row.rank or MISSING), style=QUIET), right=True, **_RANK),
        *_place_columns(result),
        *name_columns(rows, always=always_named),
        *_size_columns(rows, digits),
        *_drop_columns(result, rows, drop, digits),
        *_zero_columns(result, signed),
        *([Column(field="guess", forms=_PROGRAMS)] if result.screen else []),
        Column(field="status", forms=_PROGRAMS),
        *([] if style.whole else [_bar_column(result, style)]),
        Column("verdict", _verdict, field="verdict"),
        Column(field="status", value=lambda row: ": ".join(filter(None, (row.status, row.reason))), forms="md"),
        Column(field="reason", forms=_PROGRAMS),
        Column(field="unseen", forms=_PROGRAMS),
        *_other_columns(result, rows, digits),
        *_asked_columns(result, rows, signed),
    ]


def _place_columns(result: SweepResult) -> Iterator[Column]:
    """Where a row's tensors are, for programs and GitHub."""
    yield Column(field="layer", forms=_PROGRAMS)
    yield Column(field="block", forms=_PROGRAMS)
    if window_sizes(result.mode):
        yield Column(field="last_block", forms=_PROGRAMS)
    yield Column(field="layer", value=lambda row: "(root)" if row.place == "" else row.place, forms="md")
    yield Column(field="kind")


def _size_columns(rows: Sequence[Row], digits: int) -> Iterator[Column]:
    """Which tensors a row takes, how many numbers these are, and how far apart the two networks' are."""
    near = partial(distance, shown=partial(fixed, places=decimals((row.rmse for row in rows), digits)))
    yield Column(field="tensors", value=lambda row: list(row.tensors), forms=_PROGRAMS)
    yield field("numel", count, right=True, spare=3, minor=True)
    yield Column("RMSE", near, right=True, spare=4, minor=True, field="rmse")
    yield Column(field="rel_l2", forms=_PROGRAMS)


def _drop_columns(result: SweepResult, rows: Sequence[Row], drop: int, digits: int) -> Iterator[Column]:
    """Score and drop with its intervals, in so many decimals; the score's are no coarser."""
    score = max(drop, decimals([result.baseline, *(row.score for row in rows)], digits))
    shown = partial(fixed, places=score)
    yield field("score", shown, right=True, spare=5, minor=True, forms=_score_forms(result))
    yield field("drop", partial(fixed, places=drop, signed=True), right=True)
    yield from (Column(field=name, forms=_PROGRAMS) for name in NUMBERS)
    plain, simultaneous = attrgetter("ci_low", "ci_high"), attrgetter("sim_low", "sim_high")
    yield _interval("plain interval", "95 % interval", plain, drop, "md wide page")
    yield _interval("simultaneous", "simultaneous", simultaneous, drop)
    yield Column("±", partial(_plus_minus, places=drop), spare=2, forms="narrow")


def _zero_columns(result: SweepResult, signed: Callable[[float | None], str]) -> Iterator[Column]:
    """What zeros cost, and how many samples a row was scored on; for people where that tells rows apart."""
    tried = any(row.zero_drop is not None for row in result.rows)
    some = any(is_partial(result, row) for row in result.rows)  # a race, or a sweep that is not finished
    forms = f"{_PROGRAMS} {'md wide page latex' if tried else ''}"
    yield field("zero_drop", signed, "as zeros", right=True, forms=forms)
    yield field("samples", count, right=True, forms=f"{_PROGRAMS} {_PEOPLE if some else ''}")


def _score_forms(result: SweepResult) -> str:
    """A page of paper has no room for scores beside donors: a drop says as much."""
    return f"{_PROGRAMS} md {_PEOPLE}".removesuffix(" latex") if len(result.donors) > 1 else ""


def _other_columns(result: SweepResult, rows: Sequence[Row], digits: int) -> Iterator[Column]:
    """The scores by the run's other metrics; for people the drops, where there is room."""
    if result.others:
        yield Column(field="metrics", value=partial(_by_metric, result), forms="json")
    for at, other in enumerate(result.others):
        places = decimals((row.others[at].drop for row in rows), digits)
        shown = partial(fixed, places=places, signed=True)
        look: dict[str, Any] = {"right": True, "spare": 1, "forms": f"csv md {_PEOPLE}"}
        yield Column(field=f"{other.name}.score", value=partial(_by_other, at, "score"), forms="csv")
        drop = partial(_by_other, at, "drop")
        yield field(f"{other.name}.drop", shown, f"{safe(other.name)} drop", value=drop, **look)
        for end in ("ci_low", "ci_high"):
            yield Column(field=f"{other.name}.{end}", value=partial(_by_other, at, end), forms="csv")


def _by_other(at: int, name: str, row: Row) -> float | None:
    """A number of a row by one of the other metrics."""
    value: float | None = getattr(row.others[at], name)
    return value


def _by_metric(result: SweepResult, row: Row) -> dict[str, Any]:
    """A row's scores by every metric, the one that ranks first."""
    own = MetricScore(row.score, row.drop, row.ci_low, row.ci_high)
    names = [result.metric, *(other.name for other in result.others)]
    return dict(zip(names, map(asdict, (own, *row.others)), strict=True))


def _asked_columns(
    result: SweepResult, rows: Sequence[Row], signed: Callable[[float | None], str]
) -> Iterator[Column]:
    """What only some sweeps were asked for: several donors, sets of parts, points on the way, new statistics."""
    shown: dict[str, Any] = {"right": True, "forms": f"csv md {_PEOPLE}"}
    if len(result.donors) > 1:
        yield field("donor", safe, value=lambda row: result.donors[row.donor].path, forms="json csv md page latex")
    if result.mode == "lattice":
        yield from _lattice_columns(rows, signed)
    if any(row.path for row in result.rows):
        yield Column(field="path", value=lambda row: list(map(asdict, row.path)), forms="json")
        yield Column(field="barrier", value=lambda row: row.barrier and asdict(row.barrier), forms="json")
        yield field("barrier", signed, value=barrier_of, **shown)
    if is_recalibrated(result):
        again = "recalibrated"
        yield Column(field=again, value=lambda row: row.recalibrated and asdict(row.recalibrated), forms="json")
        yield field("recalibrated_drop", signed, "recal.", value=recalibrated_drop, **shown)


def _lattice_columns(rows: Sequence[Row], signed: Callable[[float | None], str]) -> Iterator[Column]:
    """Which parts a set is of, and what its drop has beyond the sum of theirs."""
    yield Column(field="parts", value=lambda row: list(row.parts), forms=_PROGRAMS)
    for name, end in (("interaction", "estimate"), ("interaction_low", "low"), ("interaction_high", "high")):
        yield Column(field=name, value=partial(_interaction, end=end), forms=_PROGRAMS)
    yield Column(field="interaction", value=partial(_interaction, end="estimate"), forms="md")
    if any(row.interaction for row in rows):
        yield Column("interaction", lambda row: signed(_interaction(row, "estimate")), right=True, forms=_PEOPLE)
        yield Column("its 95 % interval", lambda row: _ends_of(row, signed), forms="wide page")


def _interaction(row: Row, end: str) -> float | None:
    return getattr(row.interaction, end) if row.interaction else None


def _ends_of(row: Row, signed: Callable[[float | None], str]) -> str:
    ends = _interaction(row, "low"), _interaction(row, "high")
    return MISSING if None in ends else f"[{', '.join(map(signed, ends))}]"


def barrier_of(row: Row) -> float | None:
    """How far the way to the donor rises, where it was walked."""
    return row.barrier.height if row.barrier else None


def recalibrated_drop(row: Row) -> float | None:
    """The drop with new batch norm statistics, where these were estimated."""
    return row.recalibrated.drop if row.recalibrated else None


def _interval(
    title: str,
    name: str,
    ends: Callable[[Row], tuple[float | None, float | None]],
    places: int,
    forms: str = "md wide page latex",
) -> Column:
    def value(row: Row) -> str | None:
        return None if None in ends(row) else " … ".join(map(number, ends(row)))

    return Column(
        title, lambda row: interval(*ends(row), places, signed=True), field=name, value=value, forms=forms
    )


def _plus_minus(row: Row, places: int) -> str:
    """How far the simultaneous interval reaches; to the farther end, since an exact or a cut one is uneven."""
    if row.sim_low is None or row.sim_high is None or row.drop is None:
        return MISSING
    return f"±{fixed(max(row.sim_high - row.drop, row.drop - row.sim_low), places)}"


def _bar_column(result: SweepResult, style: Style) -> Column:
    return Column("", partial(_bar, scale=largest_drop(result.rows), style=style), spare=1, forms="narrow wide")


def _bar(row: Row, scale: float, style: Style) -> Text:
    look = WORSE if (row.drop or 0) > 0 else BETTER
    return Text(bar(row.drop, scale, 5 if style.width < WIDE else 12, style.ascii), style=look)


def _verdict(row: Row) -> Text:
    """The verdict; of what was not measured, why."""
    word = row.verdict if row.status == "measured" else row.status
    return Text(word or MISSING, style=LOOK.get(word or "", ""))


def sweep_json(result: SweepResult) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/sweep.schema.json`; names as they are, numbers in full.

    >>> sweep_json(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()))["schema"]
    'ckptswap.sweep/1'
    """
    head = ("metric", "direction", "tolerance", "baseline", "donor_score", "samples", "groups", "complete")
    columns = [column for column in sweep_columns(result, ()) if column.is_in("json")]
    asked: dict[str, Any] = {} if result.mode == "only" else {"mode": result.mode}
    if len(result.donors) > 1:
        asked["donors"] = [asdict(donor) for donor in result.donors]
    usual = {"error": "fwer", "se": "cluster"}
    asked |= {name: getattr(result, name) for name, value in usual.items() if getattr(result, name) != value}
    if is_recalibrated(result):
        asked["recalibrated_baseline"] = result.recalibrated_baseline
    if result.screen:
        asked["screen"] = asdict(result.screen)
    asked |= {name: asdict(part) for name in ("filtered", "drawn") if (part := getattr(result, name))}
    if result.others:
        own = OtherMetric(result.metric, result.direction, result.baseline, result.donor_score)
        asked["metrics"] = [asdict(metric) for metric in (own, *result.others)]
    return {
        "schema": SCHEMA,
        **{name: getattr(result, name) for name in head},
        **asked,
        "rows": [{column.field: column.of(row) for column in columns} for row in result.rows],
        "findings": [asdict(finding) for finding in result.findings],
    }


def sweep_csv(result: SweepResult) -> str:
    """Every row, with the columns of the JSON contract.

    >>> sweep_csv(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()))[:16]
    'rank,layer,block'
    """
    return columns_csv(sweep_columns(result, ()), {"rows": result.rows})


def sweep_md(result: SweepResult) -> str:
    """The same numbers for GitHub: a line of facts, a table for each way of splitting, the findings.

    >>> print(sweep_md(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=())), end="")
    **dice** (higher is better): baseline 0.9, donor –, tolerance 0.01, 72 samples
    """
    donor = f"donor {number(result.donor_score)}, " if len(result.donors) < 2 else ""
    head = (
        f"**{md_text(result.metric)}** ({better(result)}): baseline {number(result.baseline)}, "
        f"{donor}tolerance {number(result.tolerance)}, {samples_words(result)}"
    )
    also = [
        f"also **{md_text(other.name)}** ({better(other)}): baseline {number(other.baseline)}, "
        f"donor {number(other.donor_score)}\n"
        for other in result.others
    ]
    notes = (md_text(note) + "\n" for note in (*filtered_words(result), *result.notes))
    blocks = [head + "\n", *also, *notes]
    columns = sweep_columns(result, ())
    for title, rows in sections(result.rows):
        blocks.append(f"### {title.capitalize()}\n\n{columns_md(columns, {'rows': rows})}")
    if result.findings:
        blocks.append("### Findings\n\n" + "".join(map(_md_finding, result.findings)))
    return "\n".join(blocks)


def sweep_latex(result: SweepResult) -> str:
    r"""The same for papers: a table for each way of splitting.

    >>> row = Row("c", "conv.bias", ("c.bias",), 4, "measured", drop=-0.1, score=0.9, verdict="reusable")
    >>> result = SweepResult("dice", "max", 0.01, 0.8, None, 72, rows=(row,))
    >>> print(sweep_latex(result).splitlines()[6])
        layer & kind & numel & RMSE & score & drop & simultaneous & verdict \\
    """
    words = (
        f"drop in {result.metric} ({better(result)}; baseline {number(result.baseline)}, tolerance "
        f"{number(result.tolerance)}, {plural(result.samples, 'sample')}; simultaneous 95 % intervals)"
    )
    return tables_latex(
        columns_latex(sweep_columns(result, rows), rows, f"{title.capitalize()}: {words}")
        for title, rows in sections(result.rows)
    )


def _md_finding(finding: Finding) -> str:
    numbers = ", ".join(f"{md_text(name)} {number(value)}" for name, value in finding.numbers.items())
    return (
        f"- **{finding.verdict}**: {md_text(finding.text)} {numbers or MISSING}\n"
        f"  (rule: {md_text(finding.rule)})\n"
    )
