"""What a sweep is told, as pure data, of whose fields the flags are made: `SweepSpec` says what is scored,
`RunOptions` how and how far; `SweepSource` is what it takes to build a sweep's engine again."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.formats.opening import absolute
from ckptswap.records import option, refuse_odd_options
from ckptswap.scoring.variant import Calibration
from ckptswap.selection import Selection
from ckptswap.statistics import ErrorRate, StandardError
from ckptswap.sweep.donors import MADE
from ckptswap.sweep.plan import By
from ckptswap.sweep.race import RaceRules
from ckptswap.sweep.result import Mode, mode_of, window_sizes
from ckptswap.task.spec import TaskSpec

CELLS: By = ("layer", "kind")
EngineName = Literal["auto", "replay", "full", "close"]
SCREENS = ("rmse", "gradient", "curvature")
MOST_POINTS = 1000  # of a path


def screen_of(text: str) -> str:
    """A screen as it is typed; raises `UsageError` for a word that is none.

    >>> screen_of("sample:4")
    'sample:4'
    """
    if text not in SCREENS and not samples_of(text):
        remedy = f"use {', '.join(SCREENS)}, or sample:N for N samples, 1 or more"
        raise UsageError(f"--screen is {text!r:.40}", remedy=remedy)
    return text


def samples_of(screen: str | None) -> int | None:
    """On how many samples a screen scores every variant; None for one that scores none.

    >>> samples_of("sample:4"), samples_of("sample:0"), samples_of("rmse")
    (4, None, None)
    """
    match = re.fullmatch(r"sample:([1-9][0-9]{0,8})", screen or "")
    return int(match[1]) if match else None


def bytes_of(text: str) -> int:
    """A size as it is typed; raises `UsageError` for anything else.

    >>> bytes_of("2GB")
    2000000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if not size:
        raise UsageError(f"--memory {text!r} is not a size", remedy="write for example 2GB")
    return size


def seconds_of(text: str) -> float:
    """A time as it is typed; raises `UsageError` for anything else.

    >>> seconds_of("90s"), seconds_of("2h")
    (90.0, 7200.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"--budget {text!r} is not a time", remedy="write for example 90s, 5m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def points_of(text: str) -> tuple[float, ...]:
    """Points of the path from recipient (0) to donor (1) as they are typed; raises `UsageError` for anything else.

    >>> points_of("0:1:0.5"), points_of("0.25,0.5")
    ((0.0, 0.5, 1.0), (0.25, 0.5))
    """
    match = re.fullmatch(r"(-?[\d.]+):(-?[\d.]+):([\d.]+)", text)
    try:
        if not match:
            return _between(tuple(float(Decimal(part)) for part in text.split(",")))
        start, stop, step = (Decimal(part) for part in match.groups())
        count = int((stop - start) / step) + 1
    except (ArithmeticError, ValueError):
        count = 0
    if not 0 < count <= MOST_POINTS:
        raise UsageError(f"--alpha {text!r} is not a path", remedy="write for example 0:1:0.1, or 0.25,0.5")
    return _between(tuple(float(start + step * at) for at in range(count)))


def _between(alphas: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= alpha <= 1 for alpha in alphas):
        remedy = "it goes from 0 (the recipient) to 1 (the donor)"
        raise UsageError(f"--alpha has a point outside 0…1 ({min(alphas):g} to {max(alphas):g})", remedy=remedy)
    return alphas


def checked_tolerance(value: float | None) -> float | None:
    """A drop's limit as it may be given, or None. Raises `UsageError` unless it is a finite number of 0 or more.

    >>> checked_tolerance(-1)
    Traceback (most recent call last):
    ckptswap.errors.UsageError: tolerance is -1: it must be a number, 0 or more
    """
    if value is None:
        return None
    if not isinstance(value, Real) or not 0 <= value < math.inf:
        raise UsageError(f"tolerance is {value}", remedy="it must be a number, 0 or more")
    return float(value)


@dataclass(frozen=True)
class SweepSpec:
    """What is scored: which parts of which donors in which recipient, on what task.

    `donors` and `recipient` are paths, or the words by which a donor is made (`sweep.donors`); what is open
    already goes by any name. `calibration`: on what batch norm's statistics are estimated anew beside the cells.
    `map`, `map_file`, `strip_prefix` and `map_preset` bring names together. What `selection` excludes need not fit
    the model.
    `decide` has its own order of samples, and thereby its own batches, which the task is told. The samples by
    which `sample:N` screens begin the walk: they are part of the task.

    >>> from ckptswap.records import from_json, to_json
    >>> spec = SweepSpec(("a.pt",), "b.pt", TaskSpec(threads=1), by=(("kind",),))
    >>> from_json(SweepSpec, to_json(spec)) == spec
    True
    """

    donors: tuple[str, ...]
    recipient: str
    task: TaskSpec = field(default_factory=TaskSpec)
    selection: Selection = Selection()
    by: tuple[By, ...] = option(
        (),
        "layer,kind | layer | block | kind | tensor | all | depth:N | re:PATTERN; repeat for several tables.",
        metavar="WAY",
        defaults="file",
    )
    mode: Mode = option(
        "only",
        "What is taken: only this part, all-but it, all up to it (prefix) or from it on (suffix), runs of W "
        "blocks (window:W) or V to W of them (window:V:W), all sets of up to 8 parts (lattice). [default: only]",
        metavar="MODE",
        parse=mode_of,
        defaults="file",
    )
    alphas: tuple[float, ...] = option(
        (),
        "Also go part of the way to the donor, such as 0:1:0.1.",
        flag="alpha",
        metavar="A:B:STEP",
        parse=points_of,
        defaults="file",
    )
    calibration: Calibration | None = None
    map: tuple[str, ...] = ()
    map_file: str | None = None
    strip_prefix: str | None = None
    map_preset: str | None = None
    engine: EngineName = option(
        "auto",
        "How variants are scored: replay only what a swap changes, full forward passes, or close: replay by fewer "
        "operations, equal but for rounding and held against exact replay.",
        defaults="file",
    )
    memory: int | None = option(
        None, "What replays may take, such as 2GB. [default: 2GB]", metavar="SIZE", parse=bytes_of, defaults="file"
    )
    decide: bool = option(
        False,
        "Walk by groups, and stop scoring each row as soon as its verdict is known.",
        defaults="file",
    )
    confidence_sequence: bool = option(
        False,
        "With --decide: verdicts that hold for any distribution; the metric needs bounds. [default: t-tests]",
        defaults="file",
    )
    screen: str | None = option(
        None,
        "Rank the cells beforehand, and tell how well: by distance (rmse), by slopes of the loss (gradient) or of "
        "the outputs (curvature), or by scores on N samples (sample:N). --budget then takes the worst first.",
        metavar="rmse|gradient|curvature|sample:N",
        parse=screen_of,
        defaults="file",
    )

    def __post_init__(self) -> None:
        if not self.donors:
            raise UsageError("there is no donor", remedy="give one or more")
        refuse_odd_options(self)
        mode_of(self.mode)
        if not self.by:
            usual = ("block",) if window_sizes(self.mode) else ("kind",) if self.mode == "lattice" else CELLS
            object.__setattr__(self, "by", (usual,))
        _between(self.alphas)
        if self.memory is not None and self.memory < 1:
            raise UsageError(f"--memory is {self.memory}", remedy="write for example 2GB")
        if self.screen is not None:
            screen_of(self.screen)
        self._refuse_odd_decision()
        exclude, first = self.task.exclude or self.selection.exclude, samples_of(self.screen)
        told: dict[str, Any] = {"walk": "groups"} if self.decide else {}
        object.__setattr__(self, "task", replace(self.task, exclude=exclude, screen_samples=first, **told))

    def _refuse_odd_decision(self) -> None:
        if self.confidence_sequence and not self.decide:
            raise UsageError("--confidence-sequence is for --decide", remedy="give --decide with it")
        if self.decide and (self.alphas or self.calibration):
            remedy = "leave --alpha and --recalibrate-bn out, or --decide"
            raise UsageError("--decide scores no paths and estimates no statistics", remedy=remedy)
        if self.decide and samples_of(self.screen):
            fault = (
                f"--decide begins with groups drawn at random, and --screen {self.screen} with samples of its own"
            )
            raise UsageError(fault, remedy="use --screen rmse, gradient or curvature with it")


@dataclass(frozen=True)
class Judging:
    """By what a table is judged: the drop that counts as none, what verdicts keep, what standard errors presume.

    None leaves it to the run, or to the default. Raises `UsageError` for values that make no sense.
    """

    tolerance: float | None = option(
        None,
        "The largest drop that counts as none. [default: 1 % of what the baseline gains, printed]",
        defaults="file",
    )
    error: ErrorRate | None = option(
        None,
        "What verdicts keep: hardly ever one wrong in a table (fwer), or at most 5 % of those decided (fdr), for "
        "long tables. [default: fwer]",
        defaults="file",
    )
    se: StandardError | None = option(
        None,
        "Standard errors of groups that are drawn (cluster), or that stand in an order (successive). "
        "[default: cluster]",
        defaults="file",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", checked_tolerance(self.tolerance))
        refuse_odd_options(self)

    def or_else(self, other: "Judging") -> "Judging":
        """What is left open here as the other has it.

        >>> Judging(tolerance=0.1).or_else(Judging(0.2, "fdr"))
        Judging(tolerance=0.1, error='fdr', se=None)
        """
        own = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **own)


@dataclass(frozen=True)
class RunOptions(Judging):
    """How and how far a sweep is run: in which folder, for what, and where; and by what its table is judged.

    `command` is what the user typed, which the folder remembers; `samples` says whether it keeps pictures of the
    samples that are hit worst. Raises `UsageError` for values that make no sense.

    >>> RunOptions(confidence=0.9)
    Traceback (most recent call last):
    ckptswap.errors.UsageError: --confidence and --epsilon are for a race: give --top N with them
    """

    run: str | None = option(
        None, "The run's folder. [default: runs/KEY, printed]", metavar="DIR", defaults="never"
    )
    fresh: bool = option(False, "Set the folder's old journal aside and begin anew.", defaults="never")
    repair: bool = option(
        False, "Compute anew what is damaged in the journal, write a damaged plan.", defaults="never"
    )
    top: int | None = option(
        None, "Race for the N worst cells only, and show no others.", metavar="N", least=1, defaults="file"
    )
    confidence: float | None = option(
        None, "With --top: how sure to be of these N. [default: 0.95]", metavar="P", defaults="file"
    )
    epsilon: float | None = option(
        None, "With --top: drops so near are tied. [default: the tolerance]", metavar="DROP", defaults="file"
    )
    zero_control: bool | None = option(
        None,
        "Score what is reusable once more as zeros (norms: as identity): is it unused? [default: where that takes "
        "less than a tenth of the work]",
        negated=True,
        defaults="file",
    )
    budget: float | None = option(
        None,
        "Stop after so long, preparation included, such as 90s, 5m or 2h; the same command goes on.",
        metavar="TIME",
        parse=seconds_of,
        defaults="file",
    )
    executor: str | None = option(
        None, "Where: inline, process, slurm, ray. [default: inline]", metavar="NAME", defaults="file"
    )
    jobs: int | None = option(
        None, "Among how many workers, of --threads each.", metavar="N", least=1, short="j", defaults="file"
    )
    slurm: Mapping[str, Any] = option(
        None, "With slurm: submitit's parameters, such as time=60,partition=gpu.", metavar="K=V,…", factory=dict
    )
    ray_address: str | None = option(
        None, "With ray: of the cluster. [default: one on this machine]", metavar="ADDRESS"
    )
    command: str | None = None
    samples: bool = True
    close_within: float | None = option(
        None,
        "With --engine close: how far off a drop may be, else it is exact. [default: a tenth of the tolerance]",
        metavar="DROP",
        defaults="file",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.close_within is not None and not 0 < self.close_within < math.inf:
            raise UsageError(f"--close-within is {self.close_within:g}", remedy="give a drop above 0")
        if self.budget is not None and self.budget < 0:
            raise UsageError(f"--budget is {self.budget:g} seconds", remedy="write for example 90s, 5m or 2h")
        if self.top is None and (self.confidence is not None or self.epsilon is not None):
            raise UsageError("--confidence and --epsilon are for a race", remedy="give --top N with them")
        if self.top is not None and self.zero_control:
            raise UsageError("--zero-control is for reusable rows, --top for the worst", remedy="give one of them")
        if self.top is not None:
            self.race_rules(0.0)  # raises for rules that make no sense

    def race_rules(self, epsilon: float) -> RaceRules:
        """The rules of the race that is asked for, drops within `epsilon` tied unless the options say how near."""
        assert self.top is not None
        confidence = 0.95 if self.confidence is None else self.confidence
        return RaceRules(self.top, confidence, epsilon if self.epsilon is None else self.epsilon)


@dataclass(frozen=True)
class SourceFile:
    """A checkpoint as a worker opens it: its absolute path, or the word that makes it, or what it was called in
    memory; its names → ours."""

    path: str
    renames: Mapping[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "SourceFile":
        """The file of an open checkpoint."""
        is_place = checkpoint.format != MADE and bool(checkpoint.sources)
        return cls(absolute(checkpoint.path) if is_place else checkpoint.path, dict(checkpoint.renames))


@dataclass(frozen=True)
class SweepSource:
    """A sweep's spec, and where it was told it.

    `key` (the hash of the conditions) and `calibrated_on` (the calibration's fingerprint) it must give again.
    `places` is where Python looks for the user's modules, `cwd` what relative paths start from.
    """

    spec: SweepSpec
    key: str
    donors: tuple[SourceFile, ...]
    recipient: SourceFile
    cwd: str
    places: tuple[str, ...]
    calibrated_on: str | None = None


def calibration_of(batches: int | None, data: str | None, args: Mapping[str, Any]) -> Calibration | None:
    """A calibration as flags say it; raises `UsageError` for a calibration set without use."""
    if batches is not None:
        return Calibration(batches, data, args)
    if data or args:
        raise UsageError("--calibration-data is for --recalibrate-bn", remedy="give --recalibrate-bn N with it")
    return None


def ways_of(texts: tuple[str, ...]) -> tuple[By, ...]:
    """Ways of splitting as they are typed: the parts of each with commas between; an expression is the last.

    >>> ways_of(("layer,kind", "kind,re:h(.{1,2})"))
    (('layer', 'kind'), ('kind', 're:h(.{1,2})'))
    """
    return tuple(map(_way_of, texts))


def _way_of(text: str) -> By:
    words, mark, expression = (f",{text}").partition(",re:")
    return (*(word.strip() for word in words.split(",")[1:]), *([f"re:{expression}"] if mark else []))
