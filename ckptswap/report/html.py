"""A sweep as one self-contained page: the answer, a picture, every row, what to do next, and where it comes from.

The page opens offline: script and styles are in it, and its policy lets it load nothing else, and run no other
script. `page.html.j2` escapes all text from files, which has gone through `safe` before; data for the script is
JSON in which no `<` is left.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from ckptswap.report.answer import change, taken, told
from ckptswap.report.drawing import SHAPES
from ckptswap.report.next_steps import NextStep, next_steps
from ckptswap.report.page_pictures import Shown, from_donor, pictures
from ckptswap.report.rows import better, facts, mode_words, samples_words, sections
from ckptswap.report.sweep import sweep_columns
from ckptswap.report.templates import template
from ckptswap.report.text import MISSING, finite, number
from ckptswap.report.verdicts import meanings
from ckptswap.shell import quoted
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.provenance import Provenance, load_provenance
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.samples import Hit, Samples

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "script-src {script}"
)


LONG = 64  # letters of a name that a picture shows in one line
CAP = 200  # rows that are laid out before all are asked for
VERDICTS = ("sensitive", "undecided", "reusable", "unused", "identical", "no-effect", "mismatch", "failed")


@dataclass(frozen=True)
class About:
    """What a run's folder says beside its table: where it comes from, the samples that were hit worst (None where
    none were kept), all cells that it is to score, the metric that it raced by, why work
    on it `ended` before its end, the folder's path, whether this
    user's own command made it (`is_own`), and whether a sweep is at work in it."""

    origin: Provenance
    samples: Samples | None = None
    cells: tuple[Cell, ...] = ()
    raced_by: str | None = None
    ended: str | None = None
    run: str = ""
    is_own: bool = False
    is_worked_on: bool = False

    def waiting(self, result: SweepResult) -> list[Cell]:
        """The cells that are not in the table yet."""
        known = {(row.place, row.kind, row.tensors, row.donor) for row in result.rows}
        return [cell for cell in self.cells if (cell.place, cell.kind, cell.names, cell.donor) not in known]


def about(run_dir: str) -> About:
    """Read it from a run folder. Raises `RunError` for a folder that is not a run's, or is damaged."""
    folder = RunFolder(run_dir)
    plan, is_own = folder.read_plan_and_owner()
    raced_by = plan.race.metric if plan.race else None
    origin, samples = load_provenance(run_dir), folder.load_samples()
    cells, is_held = plan.plan.cells, folder.is_worked_on()
    return About(origin, samples, cells, raced_by, plan.ended, run_dir, is_own, is_held)


def sweep_html(result: SweepResult, about: About, top: int | None = None) -> str:
    """The page. `top` limits the table of rows to the worst so many of each section, and says so.

    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=())
    >>> page = sweep_html(result, About(Provenance("b", ("a",), {})))
    >>> page[:15], "Nothing is scored yet" in page
    ('<!doctype html>', True)
    """
    waiting, rows = about.waiting(result), shown_rows(result, top)
    lines = {row: at for at, row in enumerate(rows)}
    shown = list(pictures(result, waiting, lines, about.raced_by == result.metric))
    first = [each for each in shown if each.is_first] or shown[:1]
    more = [each for each in shown if each not in first]
    steps = next_steps(result, about.origin, about.run, is_own=about.is_own)
    samples = samples_words(result).removesuffix(" samples")
    known = {result.metric: better(result), **facts(result), "samples": samples}
    known |= {
        f"also {other.name}": f"{better(other)}, baseline {number(other.baseline)}" for other in result.others
    }
    return filled(
        "page.html.j2",
        row_commands(rows, about.origin),
        title=f"What {_stem(about.origin.recipient)} can take from {', '.join(map(_stem, about.origin.donors))}",
        answer=told(result, len(waiting), whole=True),
        unfinished=unfinished(result, about),
        result=result,
        facts=known,
        pictures=first,
        more=more,
        contents=_contents(result, about.samples, first, steps, more),
        shapes=SHAPES,
        samples=about.samples,
        mode=mode_words(result),
        columns=[column for column in sweep_columns(result, rows, always_named=True) if column.is_in("page")],
        rows=rows,
        cap=CAP,
        long=LONG,
        verdicts=_verdicts(rows),
        meanings=meanings(result),
        steps=steps,
        left_out=len(result.rows) - len(rows),
        origin=about.origin.facts,
        from_donor=lambda donor: from_donor(result, donor),
        cell=lambda hit: _cell(result, hit),
        change=change,
        missing=MISSING,
    )


def unfinished(result: SweepResult, about: About) -> str:
    """Why an incomplete run ended, and whether it goes on; nothing of a complete one. How far it came is among
    the notes.

    >>> partly = SweepResult("dice", "max", 0.01, 0.9, None, 8, (), complete=False)
    >>> unfinished(partly, About(Provenance("b", ("a",), {})))
    'Not finished, and no sweep is at work on it: the same command goes on where it stopped.'
    """
    if result.complete:
        return ""
    if about.is_worked_on:
        return "Not finished: a sweep is at work on it."
    why = f": {about.ended}. The" if about.ended else ", and no sweep is at work on it: the"
    return f"Not finished{why} same command goes on where it stopped."


def _contents(
    result: SweepResult,
    samples: Samples | None,
    first: Sequence[Shown],
    steps: Sequence[NextStep],
    more: Sequence[Shown],
) -> dict[str, str]:
    """The page's parts, those that there are, and what each is called."""
    parts = {
        "findings": (result.findings, "Findings"),
        "pictures": (first, "Picture" if len(first) < 2 else "Pictures"),
        "rows": (True, "Every row"),
        "next": (steps, "What to do next"),
        "more": (more, "More pictures"),
        "samples": (samples is None or samples.hits, "Worst-hit samples"),
        "origin": (True, "Where it comes from"),
    }
    return {anchor: title for anchor, (is_there, title) in parts.items() if is_there}


def _verdicts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have each verdict, or why they have none, as the table writes it."""
    counts = Counter[str | None](row.verdict if row.status == "measured" else row.status for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}


def shown_rows(result: SweepResult, top: int | None) -> list[Row]:
    """The rows of the table, section by section, of each the worst `top`."""
    every = [row for _, rows in sections(result.rows) for row in rows]
    return [row for row in every if top is None or (row.rank is not None and row.rank <= top)]


def filled(name: str, data: Mapping[str, Any], **content: Any) -> str:
    """A template with our styles and script, filled in; what is ours and no text is let through as it is."""
    from markupsafe import Markup

    here = files("ckptswap.report")
    style, ours = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    script = f"\n{ours}"
    # By this the policy knows the script of ours, and lets no other run, nor what hides in an attribute.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = POLICY.format(script=f"'sha256-{digest}'")
    text = json.dumps(finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    inert = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # in a script element
    trusted = {"style": Markup(style), "data": Markup(inert), "script": Markup(script)}
    return template(name).render(policy=Markup(policy), **trusted, **content).lstrip()


def _stem(path: str) -> str:
    return PurePath(path).name or path


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
