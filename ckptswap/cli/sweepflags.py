"""The flags of `sweep`: what is swapped, how much is computed, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ckptswap.cli.flags import Patterns
from ckptswap.errors import UsageError

if TYPE_CHECKING:
    from ckptswap.sweep.run_folder.trust import NamedAgain
    from ckptswap.task.spec import TaskSpec

MOST_POINTS = 1000
"""Of a path."""

RunFlag = Annotated[
    str | None, typer.Option("--run", metavar="DIR", help="The run's folder. [default: runs/KEY, printed]")
]


def _bytes(text: str) -> int:
    """`2GB`, `500MB` or a plain number of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if not size:
        raise UsageError(f"--memory {text!r} is no size", remedy="write for example 2GB")
    return size


def _seconds(text: str) -> float:
    """`90s`, `5m`, `2h` or a plain number of seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or not float(found[1]):
        raise UsageError(f"--budget {text!r} is no time", remedy="write for example 90s, 5m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _tolerance(value: float | None) -> float | None:
    """A drop's limit, refused before any work."""
    if value is None:
        return None
    from ckptswap.sweep.spec import checked_tolerance

    return checked_tolerance(value)


ToleranceFlag = Annotated[
    float | None,
    typer.Option(
        callback=_tolerance,
        help="The largest drop that counts as none. [default: 1 % of what the baseline gains, printed]",
    ),
]


@dataclass
class WorkFlags:
    """How much is computed, and how."""

    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Race for the N worst cells only, and show no others."),
    ] = None
    confidence: Annotated[
        float | None,
        typer.Option(metavar="P", help="With --top: how sure to be of these N. [default: 0.95]"),
    ] = None
    epsilon: Annotated[
        float | None,
        typer.Option(metavar="DROP", help="With --top: drops so near are tied. [default: the tolerance]"),
    ] = None
    budget: Annotated[
        float | None,
        typer.Option(metavar="TIME", parser=_seconds, help="Stop after so long, such as 90s, 5m or 2h."),
    ] = None
    screen: Annotated[
        Literal["rmse", "gradient"] | None,
        typer.Option(help="Guess the ranking beforehand, and tell how well it was guessed."),
    ] = None
    engine: Annotated[
        Literal["auto", "replay", "full"],
        typer.Option(help="How variants are scored: replay only what a swap changes, or full forward passes."),
    ] = "auto"
    memory: Annotated[
        int | None,
        typer.Option(metavar="SIZE", parser=_bytes, help="What replays may take, such as 2GB. [default: 2GB]"),
    ] = None

    def options(self) -> dict[str, Any]:
        """The fields of `RunOptions`."""
        names = ("top", "confidence", "epsilon", "budget", "screen")
        return {name: getattr(self, name) for name in names}


def _parameters(values: Sequence[str] | None) -> dict[str, Any]:
    """`K=V,K=V` as submitit takes it."""
    from ckptswap.task.spec import parse_args

    return parse_args(",".join(values)) if values else {}


@dataclass
class ExecutorFlags:
    """Where it is computed."""

    executor: Annotated[
        Literal["inline", "process", "slurm", "ray"] | None,
        typer.Option(help="Where: here, in processes, on a Slurm or a Ray cluster. [default: inline]"),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option("-j", "--jobs", metavar="N", min=1, help="Among how many workers, of --threads each."),
    ] = None
    slurm: Annotated[
        Patterns,
        typer.Option(metavar="K=V,…", help="With slurm: submitit's parameters, such as time=60,partition=gpu."),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With ray: of the cluster. [default: one on this machine]"),
    ] = None

    def options(self) -> dict[str, Any]:
        """The fields of `RunOptions`."""
        own = {"executor": self.executor, "jobs": self.jobs, "ray_address": self.ray_address}
        return {**own, "slurm": _parameters(self.slurm)}


def _alphas(text: str) -> tuple[float, ...]:
    """`0:1:0.1`, or single points."""
    found = re.fullmatch(r"(-?[\d.]+):(-?[\d.]+):([\d.]+)", text)
    try:
        if not found:
            return tuple(float(Decimal(part)) for part in text.split(","))
        start, stop, step = (Decimal(part) for part in found.groups())
        count = int((stop - start) / step) + 1
    except (ArithmeticError, ValueError):
        count = 0
    if not 0 < count <= MOST_POINTS:
        raise UsageError(f"--alpha {text!r} is no path", remedy="write for example 0:1:0.1, or 0.25,0.5")
    return tuple(float(start + step * at) for at in range(count))


def _between(alphas: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= alpha <= 1 for alpha in alphas):
        raise UsageError(
            f"--alpha has a point outside 0…1 ({min(alphas):g} to {max(alphas):g})",
            remedy="it goes from 0 (the recipient) to 1 (the donor)",
        )
    return alphas


@dataclass
class VariantFlags:
    """What each part of the selection takes, and what is scored beside it."""

    mode: Annotated[
        Literal["only", "all-but", "prefix", "suffix"],
        typer.Option(help="Take this part only, all but it, or all layers up to it or from it on."),
    ] = "only"
    alpha: Annotated[
        str | None,
        typer.Option(metavar="A:B:STEP", help="Also go part of the way to the donor, such as 0:1:0.1."),
    ] = None
    recalibrate_bn: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Also estimate BN statistics anew, on N batches."),
    ] = None
    calibration_data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="For that: which data. [default: of lab:mni its training part]"),
    ] = None
    calibration_args: Annotated[
        Patterns, typer.Option(metavar="K=V,…", help="Arguments of that data's callable.")
    ] = None

    def how(self) -> dict[str, Any]:
        """What `prepare` takes of it; raises `UsageError` for a calibration set without use."""
        from ckptswap.scoring.calibration import Calibration

        calibration = None
        if self.recalibrate_bn is not None:
            args = _parameters(self.calibration_args)
            calibration = Calibration(self.recalibrate_bn, self.calibration_data, args)
        elif self.calibration_data or self.calibration_args:
            raise UsageError(
                "--calibration-data is for --recalibrate-bn", remedy="give --recalibrate-bn N with it"
            )
        alphas = _between(_alphas(self.alpha)) if self.alpha is not None else ()
        return {"mode": self.mode, "alphas": alphas, "calibration": calibration}


@dataclass
class NamedFlags:
    """What a stranger's run folder names, named again."""

    donor: Annotated[
        Patterns,
        typer.Option("--from", metavar="DONOR", help="Of a stranger's folder: its donor; repeat for each."),
    ] = None
    recipient: Annotated[
        str | None, typer.Option("--recipient", metavar="RECIPIENT", help="The same: its recipient.")
    ] = None
    model: Annotated[str | None, typer.Option(metavar="SPEC", help="The same: its model.")] = None
    model_args: Annotated[Patterns, typer.Option(metavar="K=V,…", help="The same: arguments of its model.")] = None
    data: Annotated[str | None, typer.Option(metavar="SPEC", help="The same: its data.")] = None
    data_args: Annotated[Patterns, typer.Option(metavar="K=V,…", help="The same: arguments of its data.")] = None
    metric: Annotated[Patterns, typer.Option(metavar="NAME", help="The same: its metrics.")] = None
    group: Annotated[str | None, typer.Option(metavar="REGEX|CSV", help="The same: its groups.")] = None

    def named(self) -> NamedAgain | None:
        """None where nothing is named again."""
        from ckptswap.sweep.run_folder.trust import NamedAgain

        task = {
            name: getattr(self, name) for name in ("model", "model_args", "data", "data_args", "metric", "group")
        }
        return NamedAgain(tuple(self.donor or ()), self.recipient, task) or None


@dataclass
class BothFlags:
    """The other direction, with a task of its own."""

    both: Annotated[
        bool,
        typer.Option("--both", help="Also the other way: from the recipient to the donor, on the donor's task."),
    ] = False
    back_metric: Annotated[
        Patterns, typer.Option("--back-metric", metavar="NAME", help="With --both: the metric of that way.")
    ] = None
    back_target: Annotated[
        Literal["masks", "input"] | None,
        typer.Option(help="With --both: what to predict that way. [default: the other of masks and input]"),
    ] = None

    def back(self, spec: TaskSpec) -> TaskSpec:
        """The task of the other direction. Raises `UsageError` where it has no metric."""
        if not self.back_metric:
            raise UsageError("--both needs a metric for the other way", remedy="give --back-metric, such as psnr")
        target = self.back_target or ("input" if spec.target == "masks" else "masks")
        return spec.merge({"metric": self.back_metric, "target": target})

    def check(self, donors: Sequence[str], format: str, tolerance: float | None) -> None:
        """Raises `UsageError` for flags that do not go together, before any work."""
        if not self.both:
            if self.back_metric or self.back_target:
                raise UsageError("--back-metric and --back-target are for --both", remedy="give --both with them")
            return
        if len(donors) != 1:
            raise UsageError("--both is for one donor", remedy="sweep the others by themselves")
        if format == "csv":
            raise UsageError("--both gives two tables", remedy="use `report RUN/back --format csv` afterwards")
        if tolerance is not None:
            raise UsageError(
                "--tolerance is a difference of one metric, and --both has two",
                remedy="leave it out, and use `report RUN/back --tolerance` afterwards",
            )
