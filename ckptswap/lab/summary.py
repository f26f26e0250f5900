"""The experiment's report as pure data: what was done, verdicts, and the tables that they rest on. No drawing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ckptswap.lab.claims import LEAST, VARIANTS, Judged, claims
from ckptswap.lab.experiment import INITS, Experiment
from ckptswap.lab.judging import mean_of_known
from ckptswap.lab.pairs import Pair, by_network
from ckptswap.lab.predictors import PREDICTORS, kind_auc, kind_correlation, threshold_gains
from ckptswap.report.charts import Chart, Picture, Series
from ckptswap.report.document import Document, Table, Value
from ckptswap.statistics import Interval
from ckptswap.statistics.seeds import CORRELATION, SHARE, seeds_interval
from ckptswap.statistics.totals import UNBOUNDED, Bounds
from ckptswap.sweep.result import Finding
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
    tables = (
        *(_verdicts(judged, arms, init) for init in INITS),
        _over_networks(judged),
        _baselines(pairs),
        *(_kinds(pairs, arm) for arm in arms),
        _prefixes(pairs),
        _apart(pairs),
        _predictors(pairs),
        _numbers(judged),
    )
    lead = tuple(_lead(experiment, missing))
    return Document("The paper's experiment, over networks and seeds", lead, tables)


def summary_json(experiment: Experiment, pairs: Sequence[Pair], failed: dict[str, str]) -> dict[str, Any]:
    """The same as an object: settings, every pair's numbers, every verdict. Schema: `docs/schemas`."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "experiment": asdict(experiment),
        "failed": failed,
        "pairs": [asdict(pair) for pair in pairs],
        "findings": [{"arm": claim.arm, "init": claim.init, **asdict(claim.finding)} for claim in claims(pairs)],
    }


def _lead(experiment: Experiment, missing: int) -> Iterator[str]:
    yield (
        f"{experiment.seeds} seeds, {len(experiment.arms)} networks, {experiment.steps} steps a training; the "
        "donor is the auto-encoder, the recipient the segmentation network, with shared or independent "
        "initialisation. A share is a drop over |baseline − trivial prediction|: 0 is no harm, 1 all that the "
        "network knows. Means and 95 % t intervals over seeds; a claim is supported when all its parts are shown "
        "at 5 %, not supported when one is refuted at 5 % for all together (Holm); rules in docs/method.md."
    )
    yield ONE_BRAIN if experiment.data is None else f"Data: {experiment.data}."
    if experiment.seeds < LEAST:
        yield f"A claim takes {LEAST} seeds: with {experiment.seeds} nothing is decided, and this is a first look."
    if missing:
        yield f"{missing} pairs are not finished, and are not in the tables."


def _verdicts(judged: Sequence[Judged], arms: Sequence[str], init: str) -> Table:
    """A row a claim, a column a network; claims about a network stand in both."""
    known = [claim for claim in judged if claim.arm and claim.init in (init, None)]
    verdicts = {(claim.finding.claim, claim.arm): SHORT[claim.finding.verdict] for claim in known}
    names = dict.fromkeys(claim.finding.claim for claim in known)
    letters = [chr(ord("A") + at) for at in range(len(arms))]
    legend = ", ".join(f"{letter} {arm}" for letter, arm in zip(letters, arms, strict=True))
    return Table(
        f"Verdicts, {init} initialisation",
        ("claim", *letters),
        tuple((name, *(verdicts.get((name, arm)) for arm in arms)) for name in names),
        f"{legend}. yes: supported, no: not supported, ?: undecided, –: the network has no such parameters.",
    )


def _over_networks(judged: Sequence[Judged]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for finding, init in ((claim.finding, claim.init) for claim in judged if claim.arm is None):
        first = next(iter(finding.numbers))
        rows.append((finding.claim, init, finding.verdict, _mean(finding, first), finding.numbers[f"{first}.n"]))
    return Table("Over networks", ("claim", "initialisation", "verdict", "mean", "networks"), tuple(rows))


def _numbers(judged: Sequence[Judged]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for claim in judged:
        finding = claim.finding
        behind = [name for name in finding.numbers if f"{name}.n" in finding.numbers or name.endswith(".cells")]
        where = (finding.claim, claim.arm or "all", claim.init or "both")
        rows += [
            (
                *where,
                name.removesuffix(".cells"),
                _number(finding, name),
                *_p_values(finding, name),
                finding.verdict,
            )
            for name in behind
        ]
    columns = (
        "claim",
        "network",
        "initialisation",
        "number",
        "mean",
        "p for",
        "p against",
        "verdict of the claim",
    )
    return Table("Every number behind a verdict", columns, tuple(rows), is_long=True)


def _p_values(finding: Finding, name: str) -> tuple[float | None, float | None]:
    """Of one part; the claim's are the largest of these for, and the smallest against after Holm's procedure."""
    return finding.numbers[f"{name}.p_for"], finding.numbers[f"{name}.p_against"]


def _number(finding: Finding, name: str) -> Value:
    if not name.endswith(".cells"):
        return _mean(finding, name)
    kind, numbers = name.removesuffix(".cells"), finding.numbers
    return f"{numbers[f'{kind}.reusable']} reusable, {numbers[f'{kind}.sensitive']} sensitive of {numbers[name]}"


def _mean(finding: Finding, name: str) -> Interval | None:
    numbers = finding.numbers
    value = numbers[name]
    return None if value is None else Interval(float(value), numbers[f"{name}.low"], numbers[f"{name}.high"])


def mean_of(values: Iterable[float | None], bounds: Bounds = UNBOUNDED) -> Interval | None:
    """Mean and t interval over the seeds that have a value, as far as there can be such values.

    >>> mean_of([1.0, None]), mean_of([])
    (Interval(estimate=1.0, low=None, high=None), None)
    >>> mean_of([0.9, 1.0, 0.8], SHARE)
    Interval(estimate=0.9..., low=0.6515..., high=1.0)
    """
    known = [value for value in values if value is not None]
    return seeds_interval(known, bounds=bounds) if known else None


def _baselines(pairs: Sequence[Pair]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for arm, init, group in by_network(pairs):
        own, donor = ((pair.baseline for pair in group), (pair.donor_score for pair in group))
        back = mean_of(pair.back_baseline for pair in group)
        rows.append((arm, init, mean_of(own, SHARE), mean_of(donor, SHARE), back, len(group)))
    columns = ("network", "initialisation", "dice", "donor's dice", "donor's psnr", "seeds")
    return Table("Baselines: the segmentation network, and the auto-encoder on both tasks", columns, tuple(rows))


def _kinds(pairs: Sequence[Pair], arm: str) -> Table:
    """Whole kinds, and sets of several: shares in every way of swapping."""
    of_arm = [pair for pair in pairs if pair.arm == arm]
    groups = [name for name in GROUP_NAMES if any(name in pair.groups for pair in of_arm)]
    rows = [
        *((kind, *_shares(of_arm, kind, "kinds", "recalibrated")) for kind in KINDS),
        *((GROUP_NAMES[name], *_shares(of_arm, name, "groups", "regrouped")) for name in groups),
    ]
    return Table(
        f"{arm}: share of each whole kind",
        ("kind", "shared", "+new", "back", "indep.", "+new", "back", "shuffled", "noise"),
        tuple(rows),
        "Shared and independent initialisation; +new: with batch norm's statistics estimated anew; back: from the "
        "segmentation network to the auto-encoder, in psnr; shuffled: the recipient's own values in another "
        "order; noise: all moved by 30 % of their norm.",
    )


def _shares(pairs: Sequence[Pair], name: str, taken: str, again: str) -> Iterator[Interval | None]:
    ways = [(init, way) for init in INITS for way in (taken, again, "back")]
    for init, way in (*ways, ("shared", "shuffle"), ("shared", "noise")):
        yield mean_of(getattr(pair, way).get(name) for pair in pairs if pair.init == init)


def _prefixes(pairs: Sequence[Pair]) -> Table:
    """Shares where a tenth, a quarter, half, … of the layers come from the donor."""
    parts = {"10 %": 0.1, "25 %": 0.25, "50 %": 0.5, "75 %": 0.75, "90 %": 0.9, "100 %": 1.0}
    rows = [
        (arm, init, *(mean_of(_at(pair, part) for pair in group) for part in parts.values()))
        for arm, init, group in by_network(pairs)
    ]
    columns = ("network", "init", *parts)
    return Table("Prefixes: the first layers in execution order from the donor", columns, tuple(rows))


def _at(pair: Pair, part: float) -> float | None:
    return pair.prefix[max(round(part * len(pair.prefix)), 1) - 1] if pair.prefix else None


def _apart(pairs: Sequence[Pair]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for arm, init, group in by_network(pairs):
        for kind in dict.fromkeys(name for pair in group for name in pair.apart):
            known = [pair.apart[kind] for pair in group if kind in pair.apart]
            means = (mean_of_known(getattr(apart, to) for apart in known) for to in ("pair", "start", "seeds"))
            rows.append((arm, init, kind, *means))
    return Table(
        "RMSE: the pair, the recipient and its start, recipients of two seeds",
        ("network", "initialisation", "kind", "pair", "start", "seeds"),
        tuple(rows),
        is_long=True,
    )


def _predictors(pairs: Sequence[Pair]) -> Table:
    """Within a kind: rank correlation, ROC, and a threshold carried over to a network it was not fitted on."""
    rows: list[tuple[Value, ...]] = []
    for init in INITS:
        chosen = [pair for pair in pairs if pair.init == init and pair.arm not in VARIANTS]
        groups = [group for _, _, group in by_network(chosen)]
        for predictor in PREDICTORS:
            ranks = (mean_of_known(kind_correlation(pair, predictor) for pair in group) for group in groups)
            areas = (kind_auc(group, predictor) for group in groups)
            gains = threshold_gains(chosen, predictor).values()
            accuracies = (None if gain is None else gain + 0.5 for gain in gains)
            means = mean_of(ranks, CORRELATION), mean_of(areas, SHARE), mean_of(accuracies, SHARE)
            rows.append((init, predictor.replace("_", " "), *means))
    return Table(
        "What tells beforehand? Cells of one kind; means over networks",
        ("init", "predictor", "rank corr.", "AUC", "balanced accuracy"),
        tuple(rows),
        "AUC: of two cells, how often the one that cannot be reused has the larger number (0.5 is chance). "
        "Balanced accuracy: of a threshold fitted on all other networks.",
    )


def pictures(pairs: Sequence[Pair]) -> dict[str, tuple[Picture, ...]]:
    """File name (without ending) → panels, one an initialisation."""
    arms = dict.fromkeys(pair.arm for pair in pairs)
    panels = {
        f"{init} initialisation": {
            arm: [pair for pair in pairs if (pair.init, pair.arm) == (init, arm)] for arm in arms
        }
        for init in INITS
    }
    charts = {"kinds": _kind_chart, "prefixes": _prefix_chart, "rmse": _rmse_chart}
    return {name: tuple(draw(group, start) for start, group in panels.items()) for name, draw in charts.items()}


def _kind_chart(networks: Mapping[str, Sequence[Pair]], start: str) -> Chart:
    series = []
    for arm, group in networks.items():
        means = [mean_of(pair.kinds.get(kind) for pair in group) for kind in KINDS]
        ends = ("estimate", "low", "high")
        y, low, high = (tuple(getattr(mean, end) if mean else None for mean in means) for end in ends)
        series.append(Series(arm, KINDS, y, low, high))
    return Chart("dots", f"whole kinds, {start}", "", "share, mean over seeds and 95 %", tuple(series))


def _prefix_chart(networks: Mapping[str, Sequence[Pair]], start: str) -> Chart:
    series = []
    for arm, group in networks.items():
        long = max((len(pair.prefix) for pair in group), default=0)
        means = [mean_of_known(pair.prefix[at] for pair in group) for at in range(long)]
        series.append(Series(arm, tuple((at + 1) / long for at in range(long)), tuple(means)))
    axes = "part of the layers from the donor", "share, mean over seeds"
    return Chart("lines", f"prefixes, {start}", *axes, tuple(series))


def _rmse_chart(networks: Mapping[str, Sequence[Pair]], start: str, kind: str = "conv.weight") -> Chart:
    series = []
    for arm, group in networks.items():
        cells = [cell for pair in group for cell in pair.cells if cell.kind == kind and cell.rmse]
        series.append(Series(arm, tuple(cell.rmse or 0.0 for cell in cells), tuple(cell.share for cell in cells)))
    axes = "RMSE between donor and recipient", "share"
    return Chart("scatter", f"cells of {kind}, {start}", *axes, tuple(series), is_log_x=True)
