"""The experiment's report as pure data: what was done, verdicts, and the tables that they rest on. No drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ckptswap.lab.claims import LEAST, VARIANTS, Judged, claims
from ckptswap.lab.experiment import INITS, Experiment
from ckptswap.lab.pairs import Pair
from ckptswap.lab.predictors import PREDICTORS, kind_auc, kind_correlation, threshold_gains
from ckptswap.report.charts import Chart, Picture, Series
from ckptswap.report.document import Document, Mean, Table, Value
from ckptswap.statistics.seeds import CORRELATION, SHARE, seeds_interval
from ckptswap.statistics.totals import UNBOUNDED, Bounds
from ckptswap.version import __version__

SCHEMA = "ckptswap.reproduce/1"
ONE_BRAIN = (
    "MNI152 is one average brain, and its blocks of slices are parts of it: intervals over seeds speak of other "
    "trainings on this brain, not of other brains."
)
SHORT = {"supported": "yes", "not supported": "no", "undecided": "?"}
GROUP_NAMES = {
    "affine": "bn.weight + bn.bias",
    "bias-before-norm": "conv.bias before BN",
    "bias-without-norm": "conv.bias, no BN after",
    "bias-and-mean": "those + running mean",
}
KINDS = ("bn.running_mean", "bn.running_var", "bn.weight", "bn.bias", "conv.weight", "conv.bias")


def summary(experiment: Experiment, pairs: Sequence[Pair], missing: int) -> Document:
    """Everything that the report says. `missing` is the number of pairs that are not finished."""
    arms = list(dict.fromkeys(pair.arm for pair in pairs))
    judged = claims(pairs)
    tables = [
        *(_verdicts(judged, arms, init) for init in INITS),
        _over_networks(judged),
        _baselines(pairs),
        *(_kinds(pairs, arm) for arm in arms),
        _prefixes(pairs),
        _apart(pairs),
        _predictors(pairs),
        _numbers(judged),
    ]
    return Document(
        "The paper's experiment, over networks and seeds", tuple(_lead(experiment, missing)), tuple(tables)
    )


def summary_json(experiment: Experiment, pairs: Sequence[Pair], failed: dict[str, str]) -> dict[str, Any]:
    """The same as an object: settings, every pair's numbers, every verdict. Schema: `docs/schemas`."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "experiment": asdict(experiment),
        "failed": failed,
        "pairs": [asdict(pair) for pair in pairs],
        "findings": [{"arm": each.arm, "init": each.init, **asdict(each.finding)} for each in claims(pairs)],
    }


def _lead(experiment: Experiment, missing: int) -> Iterator[str]:
    yield (
        f"{experiment.seeds} seeds, {len(experiment.arms)} networks, {experiment.steps} steps a training; the "
        "donor is the auto-encoder, the recipient the segmentation network, with shared or independent "
        "initialisation. A share is a drop over |baseline − trivial prediction|: 0 is no harm, 1 all that the "
        "network knows. Means and 95 % t intervals over seeds; rules in docs/method.md."
    )
    yield ONE_BRAIN if experiment.data is None else f"Data: {experiment.data}."
    if experiment.seeds < LEAST:
        yield f"A claim takes {LEAST} seeds: with {experiment.seeds} nothing is decided, and this is a first look."
    if missing:
        yield f"{missing} pairs are not finished, and are not in the tables."


# Verdicts --------------------------------------------------------------------------------------------------------


def _verdicts(judged: Sequence[Judged], arms: Sequence[str], init: str) -> Table:
    """A row a claim, a column a network; claims about a network stand in both."""
    found = {(each.finding.claim, each.arm): each.finding.verdict for each in judged if each.init in (init, None)}
    names = list(dict.fromkeys(each.finding.claim for each in judged if each.arm and each.init in (init, None)))
    letters = [chr(ord("A") + at) for at in range(len(arms))]
    rows = [(name, *(_short(found.get((name, arm))) for arm in arms)) for name in names]
    legend = ", ".join(f"{letter} {arm}" for letter, arm in zip(letters, arms, strict=True))
    return Table(
        f"Verdicts, {init} initialisation",
        ("claim", *letters),
        tuple(rows),
        f"{legend}. yes: supported, no: not supported, ?: undecided, –: the network has no such parameters.",
    )


def _short(verdict: str | None) -> str | None:
    return None if verdict is None else SHORT[verdict]


def _over_networks(judged: Sequence[Judged]) -> Table:
    rows = [
        (each.finding.claim, each.init, each.finding.verdict, *_first(each)) for each in judged if each.arm is None
    ]
    return Table("Over networks", ("claim", "initialisation", "verdict", "mean", "networks"), tuple(rows))


def _first(each: Judged) -> tuple[Value, Value]:
    name = next(iter(each.finding.numbers))
    return _mean(each, name), each.finding.numbers[f"{name}.n"]


def _mean(each: Judged, name: str) -> Mean | None:
    numbers = each.finding.numbers
    value = numbers[name]
    return None if value is None else Mean(float(value), numbers[f"{name}.low"], numbers[f"{name}.high"])


def _numbers(judged: Sequence[Judged]) -> Table:
    rows = []
    for each in judged:
        numbers = each.finding.numbers
        for name in [name for name in numbers if f"{name}.n" in numbers or name.endswith(".cells")]:
            rows.append((each.finding.claim, each.arm or "all", each.init or "both", *_part(each, name)))
    columns = ("claim", "network", "initialisation", "number", "mean", "verdict of the claim")
    return Table("Every number behind a verdict", columns, tuple(rows), is_long=True)


def _part(each: Judged, name: str) -> tuple[Value, Value, Value]:
    numbers, verdict = each.finding.numbers, each.finding.verdict
    if name.endswith(".cells"):
        stem = name.removesuffix(".cells")
        text = (
            f"{numbers[f'{stem}.reusable']} reusable, {numbers[f'{stem}.sensitive']} sensitive of {numbers[name]}"
        )
        return stem, text, verdict
    return name, _mean(each, name), verdict


# Numbers ---------------------------------------------------------------------------------------------------------


def mean_of(values: Iterable[float | None], bounds: Bounds = UNBOUNDED) -> Mean | None:
    """Mean and t interval over the seeds that have a value, as far as there can be such values.

    >>> mean_of([1.0, None]), mean_of([])
    (Mean(value=1.0, low=None, high=None), None)
    >>> mean_of([0.9, 1.0, 0.8], SHARE)
    Mean(value=0.9..., low=0.6515..., high=1.0)
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = seeds_interval(known, bounds=bounds)
    return Mean(found.estimate, found.low, found.high)


def _groups(pairs: Sequence[Pair]) -> Iterator[tuple[str, str, list[Pair]]]:
    for arm, init in dict.fromkeys((pair.arm, pair.init) for pair in pairs):
        yield arm, init, [pair for pair in pairs if (pair.arm, pair.init) == (arm, init)]


def _baselines(pairs: Sequence[Pair]) -> Table:
    rows = [
        (
            arm,
            init,
            mean_of((pair.baseline for pair in group), SHARE),
            mean_of((pair.donor_score for pair in group), SHARE),
            mean_of(pair.back_baseline for pair in group),
            len(group),
        )
        for arm, init, group in _groups(pairs)
    ]
    columns = ("network", "initialisation", "dice", "donor's dice", "donor's psnr", "seeds")
    return Table("Baselines: the segmentation network, and the auto-encoder on both tasks", columns, tuple(rows))


def _kinds(pairs: Sequence[Pair], arm: str) -> Table:
    """Whole kinds, and sets of several: shares in every way of swapping."""
    by_init = {init: [pair for pair in pairs if (pair.arm, pair.init) == (arm, init)] for init in INITS}
    rows: list[tuple[Value, ...]] = []
    for kind in KINDS:
        rows.append((kind, *_ways(by_init, kind)))
    for group, name in GROUP_NAMES.items():
        if any(group in pair.groups for each in by_init.values() for pair in each):
            rows.append((name, *_group_ways(by_init, group)))
    columns = ("kind", "shared", "+new", "back", "indep.", "+new", "back", "shuffled", "noise")
    return Table(
        f"{arm}: share of each whole kind",
        columns,
        tuple(rows),
        "Shared and independent initialisation; +new: with batch norm's statistics estimated anew; back: from the "
        "segmentation network to the auto-encoder, in psnr; shuffled: the recipient's own values in another "
        "order; noise: all moved by 30 % of their norm.",
    )


def _ways(by_init: dict[str, list[Pair]], kind: str) -> Iterator[Value]:
    for init in INITS:
        group = by_init[init]
        yield mean_of(pair.kinds.get(kind) for pair in group)
        yield mean_of(pair.recalibrated.get(kind) for pair in group)
        yield mean_of(pair.back.get(kind) for pair in group)
    yield mean_of(pair.shuffle.get(kind) for pair in by_init["shared"])
    yield mean_of(pair.noise.get(kind) for pair in by_init["shared"])


def _group_ways(by_init: dict[str, list[Pair]], name: str) -> Iterator[Value]:
    for init in INITS:
        yield mean_of(pair.groups.get(name) for pair in by_init[init])
        yield mean_of(pair.regrouped.get(name) for pair in by_init[init])
        yield None
    yield None
    yield None


def _prefixes(pairs: Sequence[Pair]) -> Table:
    """Shares where a tenth, a quarter, half, … of the layers come from the donor."""
    parts = {"10 %": 0.1, "25 %": 0.25, "50 %": 0.5, "75 %": 0.75, "90 %": 0.9, "100 %": 1.0}
    rows = [
        (arm, init, *(mean_of(_at(pair, part) for pair in group) for part in parts.values()))
        for arm, init, group in _groups(pairs)
    ]
    columns = ("network", "init", *parts)
    return Table("Prefixes: the first layers in execution order from the donor", columns, tuple(rows))


def _at(pair: Pair, part: float) -> float | None:
    return pair.prefix[max(round(part * len(pair.prefix)), 1) - 1] if pair.prefix else None


def _apart(pairs: Sequence[Pair]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for arm, init, group in _groups(pairs):
        for kind in dict.fromkeys(name for pair in group for name in pair.apart):
            known = [pair.apart[kind] for pair in group if kind in pair.apart]
            rows.append((arm, init, kind, *(_plain(getattr(each, to) for each in known) for to in _TO)))
    return Table(
        "RMSE: the pair, the recipient and its start, recipients of two seeds",
        ("network", "initialisation", "kind", "pair", "start", "seeds"),
        tuple(rows),
        is_long=True,
    )


_TO = ("pair", "start", "seeds")


def _plain(values: Iterable[float | None]) -> float | None:
    found = mean_of(values)
    return found.value if found else None


def _predictors(pairs: Sequence[Pair]) -> Table:
    """Within a kind: rank correlation, ROC, and a threshold carried over to a network it was not fitted on."""
    rows: list[tuple[Value, ...]] = []
    for init in INITS:
        group = [pair for pair in pairs if pair.init == init and pair.arm not in VARIANTS]
        for predictor in PREDICTORS:
            gains = threshold_gains(group, predictor).values()
            rows.append(
                (
                    init,
                    predictor.replace("_", " "),
                    _over_arms(group, partial(_correlation, predictor), CORRELATION),
                    _over_arms(group, partial(_auc, predictor), SHARE),
                    mean_of((None if gain is None else gain + 0.5 for gain in gains), SHARE),
                )
            )
    return Table(
        "What tells beforehand? Cells of one kind; means over networks",
        ("init", "predictor", "rank corr.", "AUC", "balanced accuracy"),
        tuple(rows),
        "AUC: of two cells, how often the one that cannot be reused has the larger number (0.5 is chance). "
        "Balanced accuracy: of a threshold fitted on all other networks.",
    )


def _over_arms(
    pairs: Sequence[Pair], value: Callable[[Sequence[Pair]], float | None], bounds: Bounds
) -> Mean | None:
    arms = dict.fromkeys(pair.arm for pair in pairs)
    return mean_of((value([pair for pair in pairs if pair.arm == arm]) for arm in arms), bounds)


def _correlation(predictor: str, pairs: Sequence[Pair]) -> float | None:
    return _plain(kind_correlation(pair, predictor) for pair in pairs)


def _auc(predictor: str, pairs: Sequence[Pair]) -> float | None:
    return kind_auc(pairs, predictor)


# Pictures --------------------------------------------------------------------------------------------------------


def pictures(pairs: Sequence[Pair]) -> dict[str, tuple[Picture, ...]]:
    """File name (without ending) → panels, one an initialisation."""
    return {
        "kinds": tuple(_kind_chart(pairs, init) for init in INITS),
        "prefixes": tuple(_prefix_chart(pairs, init) for init in INITS),
        "rmse": tuple(_rmse_chart(pairs, init) for init in INITS),
    }


def _of(pairs: Sequence[Pair], init: str) -> dict[str, list[Pair]]:
    arms = dict.fromkeys(pair.arm for pair in pairs)
    return {arm: [pair for pair in pairs if (pair.arm, pair.init) == (arm, init)] for arm in arms}


def _kind_chart(pairs: Sequence[Pair], init: str) -> Chart:
    series = []
    for arm, group in _of(pairs, init).items():
        means = [mean_of(pair.kinds.get(kind) for pair in group) for kind in KINDS]
        y, low, high = (
            tuple(None if mean is None else getattr(mean, end) for mean in means)
            for end in ("value", "low", "high")
        )
        series.append(Series(arm, KINDS, y, low, high))
    return Chart(
        "dots", f"whole kinds, {init} initialisation", "", "share, mean over seeds and 95 %", tuple(series)
    )


def _prefix_chart(pairs: Sequence[Pair], init: str) -> Chart:
    series = []
    for arm, group in _of(pairs, init).items():
        long = max((len(pair.prefix) for pair in group), default=0)
        means = [_plain(pair.prefix[at] for pair in group) for at in range(long)]
        series.append(Series(arm, tuple((at + 1) / long for at in range(long)), tuple(means)))
    title = f"prefixes, {init} initialisation"
    return Chart("lines", title, "part of the layers from the donor", "share, mean over seeds", tuple(series))


def _rmse_chart(pairs: Sequence[Pair], init: str, kind: str = "conv.weight") -> Chart:
    series = []
    for arm, group in _of(pairs, init).items():
        cells = [cell for pair in group for cell in pair.cells if cell.kind == kind and cell.rmse]
        series.append(Series(arm, tuple(cell.rmse or 0.0 for cell in cells), tuple(cell.share for cell in cells)))
    title = f"cells of {kind}, {init} initialisation"
    return Chart("scatter", title, "RMSE between donor and recipient", "share", tuple(series), is_log_x=True)
