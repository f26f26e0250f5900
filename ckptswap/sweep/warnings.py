"""What a table says in words beside its rows: what is missing, what rests on little, how race and guess went."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import numpy as np

from ckptswap.errors import listing
from ckptswap.scoring.variant import BASELINE
from ckptswap.statistics import intervals
from ckptswap.statistics.exact import LEAST_MOVED, Few
from ckptswap.statistics.verdicts import MOST_SHARE, RowIntervals
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.run_folder.blocks import donor_id
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.task.metrics.metric import OF_SET

ALIKE = 0.2  # neighbouring groups' correlation from which on it is said: ours


def notes(run: ScoredRun, cells: Sequence[Cell], drops: Mapping[str, RowIntervals], tolerance: float) -> list[str]:
    """Warnings of the run, and what a reader of these cells' rows should know; `drops` by variant."""
    sentences = list(run.run.warnings)
    baseline = run.scores.done(BASELINE)
    if baseline < run.scores.samples:
        sentences.append(
            f"the baseline is known on {baseline} of {run.scores.samples} samples, and what was scored on the "
            "others is left out: the same command continues"
        )
    groups = len(np.unique(run.groups))
    if groups < intervals.LEAST_GROUPS:
        sentences.append(
            f"{groups} group{'' if groups == 1 else 's'} of samples, fewer than {intervals.LEAST_GROUPS}: no "
            "intervals, and every measured row is undecided"
        )
    sentences += [f"{metric.name}: {OF_SET}" for metric in run.run.metrics if metric.is_of_set]
    largest = np.bincount(np.unique(run.groups, return_inverse=True)[1]).max() / len(run.groups)
    if groups >= intervals.LEAST_GROUPS and largest > MOST_SHARE:
        sentences.append(
            f"one group has {largest:.0%} of all samples, so that drops are that group's: what moved in more than "
            f"{LEAST_MOVED - 1} groups has no p-values, and is undecided"
        )
    sentences += [*_few_notes(run, drops, tolerance), *judging_notes(run, drops)]
    for at, misfit in enumerate(run.run.donor_misfits):
        reason = misfit or run.failed(donor_id(at))
        if reason is not None:
            which = "the donor" if len(run.run.spec.donors) == 1 else run.run.spec.donors[at]
            sentences.append(f"{which} has no score on this task: {reason}")
    sentences += [*_beside_notes(run), *_close_notes(run, tolerance)]
    odd = sum(cell.non_finite is not None for cell in cells)
    if odd:
        sentences.append(f"{odd} rows take or replace values that are NaN or infinite, and have no distance")
    return [*sentences, *_unfinished(run, cells), *_race_notes(run), *_decision_notes(run)]


def _close_notes(run: ScoredRun, tolerance: float) -> Iterator[str]:
    """How far scores are off, where some were computed by a way that is only close."""
    off = run.scores.closeness
    if not off:
        return
    close, largest = run.scores.close, max(off.values())
    yield (
        "scores are close, not exact: on the batches where each was held against an exact one a drop was off by "
        f"at most {largest:.2g} (the tolerance is {tolerance:.4g}); {len(off.keys() - close)} of {len(off)} "
        "variants are scored exactly on all batches"
    )


def _unfinished(run: ScoredRun, cells: Sequence[Cell]) -> Iterator[str]:
    """Why the last work on it ended and what is left to score, in one sentence."""
    told = [run.run.ended] if run.run.ended else []
    waiting = len(run.plan.cells) - len(cells)
    if waiting:
        told.append(f"{waiting} of {len(run.plan.cells)} rows are not scored yet")
    known = run.decisions.judgements if run.decisions else {}
    closed = {variant for variant, own in known.items() if not own.is_open}
    raced = {split.by for split in run.races if split.standing.finished}
    scored = (cell for cell in cells if run.is_scored(cell) and cell.by not in raced)
    open_ = [cell.variant for cell in scored if cell.variant not in closed]
    partly = [done for done in map(run.scores.done, open_) if done < run.scores.samples]
    if partly:
        some = f"{min(partly)} to {max(partly)}" if min(partly) < max(partly) else f"{min(partly)}"
        rows = "1 row rests" if len(partly) == 1 else f"{len(partly)} rows rest"
        told.append(f"{rows} on {some} of {run.scores.samples} samples so far")
    if told:
        yield f"{'; '.join(told)}: the same command continues"


def unproven(few: Few, metric: str, tolerance: float, error: float) -> str:
    """Why a row that moved in so few groups is undecided, and how many groups would tell.

    >>> unproven(Few(0.0, 0, 1, 16, -1.0, 1.0), "accuracy", 0.01, 0.025)
    'moved in 1 of 16 groups: a drop of up to 0.302 is possible; 555 such groups would tell'
    """
    apart = few.below + few.above
    moved = f"moved in {apart} of {few.groups} groups"
    if few.common:
        moved = f"moved alike in {few.groups - apart} of {few.groups} groups"
    if not few.is_bounded:
        return f"{moved}: one group's loss in {metric} has no bound, so that no number of groups would tell"
    possible = f"{moved}: a drop of up to {few.ends(error)[1]:.3g} is possible"
    groups = few.groups_that_tell(tolerance, error)
    return possible if groups is None else f"{possible}; {groups:,} such groups would tell"


def _few_notes(run: ScoredRun, drops: Mapping[str, RowIntervals], tolerance: float) -> Iterator[str]:
    """What the reasons of rows that hardly moved have in common."""
    hardly = [row for row in drops.values() if row.few]
    open_ = [row for row in hardly if row.verdict == "undecided"]
    if not open_:
        return
    alike = ", or alike in all but as few" if any(row.few and row.few.common for row in open_) else ""
    told = [row.few.groups_that_tell(tolerance, row.error) for row in open_ if row.few]
    least = min((groups for groups in told if groups is not None), default=None)
    if least is not None:
        outlook = f"{least:,} groups or more would tell"
    elif any(row.few and row.few.is_bounded for row in open_):
        outlook = "their reasons say how large a drop may be"
    else:
        outlook = f"one group's loss in {run.metric.name} has no bound, so that no number would tell"
    rows, them = ("1 row", "it") if len(open_) == 1 else (f"{len(open_):,} rows", "them")
    yield (
        f"{rows} moved in fewer than {LEAST_MOVED} groups{alike}, which does not prove that more would not: an "
        f"exact bound leaves {them} undecided; {outlook}"
    )


def judging_notes(run: ScoredRun, drops: Mapping[str, RowIntervals]) -> Iterator[str]:
    """What verdicts keep and presume, where that is not the usual, and where neighbouring groups are alike."""
    if run.error == "fdr":
        yield "verdicts at a false discovery rate: of all that are decided up to 5 % are wrong, on average"
    if run.se == "successive":
        yield (
            "standard errors by the differences of neighbouring groups: they speak of what these groups are drawn "
            "from at equal steps (a volume), and not of other volumes"
        )
        return
    lags = [row.lag_one for row in drops.values() if row.lag_one is not None and not run.run.spec.decide]
    if lags and (typical := median(lags)) > ALIKE:
        yield (
            f"neighbouring groups are alike: the correlation of their drops is {typical:.2f}, the median of "
            f"{len(lags)} rows. Intervals and verdicts take groups as drawn one by one; --se successive does not"
        )


def _beside_notes(run: ScoredRun) -> Iterator[str]:
    beside = run.beside
    waiting = sum(not run.scores.is_begun(variant.id) for variant in beside)
    if waiting:
        yield f"{waiting} of {len(beside)} scores beside the rows are not there yet: the same command continues"
    reasons = [reason for variant in beside if (reason := run.failed(variant.id))]
    if reasons:
        why = listing(list(dict.fromkeys(reasons)), most=3)
        yield f"{len(reasons)} of {len(beside)} scores beside the rows failed: {why}"


def _race_notes(run: ScoredRun) -> Iterator[str]:
    race, rules = run.race, run.race_rules
    if race is None or rules is None:
        return
    sure = f"at {race.confidence:.0%} confidence, drops within {race.epsilon:.4g} counting as tied"
    for split in run.races:
        now, what = split.standing, f"race for the top {race.top} by {','.join(split.by)}"
        share = f"{now.scored.sum() / (len(now.scored) * run.scores.samples):.0%} of all scores"
        if now.finished:
            yield f"{what}: decided {sure}, on {share}"
        else:
            yield f"{what}: {int((~now.outside).sum())} rows are still in it, on {share} so far"
    if rules.ceiling is None:
        yield f"one sample's {race.metric} has no bound, so that the race's confidence is not guaranteed"


def _decision_notes(run: ScoredRun) -> Iterator[str]:
    now, metric = run.decisions, run.run.metrics[0].name
    if now is None or not now.judgements:
        return
    rows, groups = now.judgements.values(), now.looks[-1]
    known = [own.groups for own in rows if own.verdict != "undecided"]
    ends = " to ".join(map(str, dict.fromkeys((min(known), max(known))))) if known else ""
    after = f", after {ends} of {groups} groups" if known else ""
    share = sum(map(run.scores.done, now.judgements)) / (len(rows) * run.scores.samples)
    yield f"{len(known)} of {len(rows)} verdicts are known{after}, on {share:.0%} of all scores"
    given_up = sum(own.is_given_up for own in rows)
    if given_up:
        yield f"{given_up} rows are left undecided: not even all {groups} groups would tell, by how they look"
    looks = ", ".join(map(str, now.looks))
    how = "bets on each group" if run.run.spec.confidence_sequence else f"t-tests at {looks} groups"
    yield (
        f"verdicts are by {how}, of either kind wrong in 2.5% of tables at most; intervals do not know of the "
        "looks, and speak of each row's own samples"
    )
    if run.metric.name != metric:
        yield f"rows were scored until their verdict by {metric} was known"
