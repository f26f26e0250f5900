"""How well a run's screen told its drops beforehand, and in words."""

from collections.abc import Iterator, Sequence

from ckptswap.statistics.ranks import auc, spearman, top_overlap
from ckptswap.sweep.result import Row, Screened
from ckptswap.sweep.scored_run import ScoredRun

TOPS = (5, 10)


def screened(run: ScoredRun, rows: Sequence[Row]) -> Screened | None:
    """What the screen guessed held against these rows, each variant once; None for a run without one.

    What rests on nothing but the screen's own samples proves nothing of it, and does not count.
    """
    if run.run.screen is None:
        return None
    samples = sum(map(len, run.scores.walk[: run.run.screen_batches]))
    measured = {
        (row.donor, frozenset(row.tensors)): (row.guess, row.drop, row.verdict)
        for row in rows
        if row.guess is not None and row.drop is not None and (row.samples or 0) > samples
    }
    guesses, drops = [guess for guess, _, _ in measured.values()], [drop for _, drop, _ in measured.values()]
    decided = [(guess, verdict) for guess, _, verdict in measured.values() if verdict not in (None, "undecided")]
    sensitive = [guess for guess, verdict in decided if verdict == "sensitive"]
    return Screened(
        by=run.run.screen.by,
        samples=samples or None,
        variants=len(measured),
        spearman=spearman(guesses, drops),
        auc=auc([guess for guess, verdict in decided if verdict != "sensitive"], sensitive),
        sensitive=len(sensitive),
        decided=len(decided),
        top={str(count): top_overlap(guesses, drops, count) for count in TOPS},
    )


def screen_notes(run: ScoredRun, told: Screened | None) -> Iterator[str]:
    """The same in a sentence; and in what order the work was done, where the screen was that."""
    if told is None or run.run.screen is None:
        return
    if run.run.screen.is_order:
        yield f"the work goes by {told.by}, the worst first"
    where = f" ({told.samples} of {run.scores.samples} samples)" if told.samples else ""
    if not told.variants:
        yield f"screen by {told.by}{where}: nothing is scored yet that it could be held against"
        return
    told_apart = f"tells sensitive from others with AUC {told.auc:.2f}" if told.auc is not None else _untold(told)
    shares = [f"{share:.0%} of the {count} worst" for count, share in told.top.items() if share is not None]
    tops = f"; it has {' and '.join(shares)}" if shares else ""
    agreement = "none can be told" if told.spearman is None else f"{told.spearman:+.2f}"
    yield (
        f"screen by {told.by}{where}: rank correlation with the drops {agreement}, over {told.variants} variants; "
        f"{told_apart} ({told.sensitive} of {told.decided} decided){tops}"
    )


def _untold(told: Screened) -> str:
    """Why no AUC can be told."""
    if not told.decided:
        return "no AUC, since none is decided"
    return f"no AUC, since {'none is' if not told.sensitive else 'all are'} sensitive"
