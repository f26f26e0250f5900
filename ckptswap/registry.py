"""What a sweep is made of, by name: models, data, metrics, formats, executors; ours and those of other packages.

A name stands for `"package.module:attribute"`, imported when somebody asks for it. Ours are in the table below;
another package declares an entry point of that form in the group `ckptswap.GROUP`. Ours win over these.

- models, `--model NAME:REST`: a `Source` whose `build(rest, args)` gives a `torch.nn.Module`, freshly initialised;
- data, `--data NAME:REST`: a `Source` whose `build(rest, args)` gives a Dataset or yields batches (`task.data`),
  or where it `is_told` of the task `build(rest, args, request)`, by a `task.data.request.DataRequest`;
- metrics, `--metric NAME` or `NAME:REST`: a `Source` whose `build(rest, spec)` gives a `task.metrics.Metric`;
- formats, told by a file's first bytes or by its ending: a `formats.Format`;
- checkpoints, `NAME:REST` where a command takes one: a `formats.format.CheckpointSource`;
- executors, `--executor NAME`: `build(spec, jobs, options)`, which gives a `sweep.runner.Executor`.

`spec` is the `TaskSpec`, `options` the executor's own flags that were given. A stranger's files may name only what
is `Source.is_safe`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from re import match
from types import ModuleType
from typing import Any, Literal

from ckptswap.errors import DataError, DependencyError, MetricError, ModelError, UsageError, near

Group = Literal["models", "data", "metrics", "formats", "checkpoints", "executors"]

_OURS: dict[Group, dict[str, str]] = {
    "models": {
        "smp": "ckptswap.task.models.smp:SOURCE",
        "timm": "ckptswap.task.models.timm:SOURCE",
        "torchvision": "ckptswap.task.models.torchvision:SOURCE",
        "hf": "ckptswap.task.models.hf:FOLDER",
        "transformers": "ckptswap.task.models.hf:CLASS",
        "lightning": "ckptswap.task.models.lightning:SOURCE",
        "export": "ckptswap.task.models.exported:EXPORT",
        "script": "ckptswap.task.models.exported:SCRIPT",
        "lab": "ckptswap.lab:MODELS",
    },
    "data": {
        "lab": "ckptswap.lab:DATA",
        "text": "ckptswap.task.data.registered:TEXT",
        "datasets": "ckptswap.task.data.registered:DATASETS",
        "npz": "ckptswap.task.data.registered:NPZ",
        "random": "ckptswap.task.data.registered:RANDOM",
    },
    "metrics": {
        "iou": "ckptswap.task.metrics.overlap:IOU",
        "dice": "ckptswap.task.metrics.overlap:DICE",
        "accuracy": "ckptswap.task.metrics.overlap:ACCURACY",
        "mse": "ckptswap.task.metrics.distance:MSE",
        "psnr": "ckptswap.task.metrics.distance:PSNR",
        "loss": "ckptswap.task.metrics.entropy:LOSS",
        "perplexity": "ckptswap.task.metrics.entropy:PERPLEXITY",
        "token-accuracy": "ckptswap.task.metrics.ranked:TOKEN_ACCURACY",
        "top1": "ckptswap.task.metrics.ranked:TOP1",
        "top5": "ckptswap.task.metrics.ranked:TOP5",
        "kl": "ckptswap.task.metrics.unlabelled:KL",
        "agreement": "ckptswap.task.metrics.unlabelled:AGREEMENT",
        "output-mse": "ckptswap.task.metrics.unlabelled:OUTPUT_MSE",
        "torchmetrics": "ckptswap.task.metrics.torchmetrics:SOURCE",
    },
    "formats": {  # in the order in which they are asked: light imports first, folders before what lies in them
        "safetensors": "ckptswap.formats.safetensors:FORMAT",
        "distributed": "ckptswap.formats.distributed:FORMAT",
        "sharded": "ckptswap.formats.sharded:FORMAT",
        "peft": "ckptswap.formats.peft:FORMAT",
        "smp-folder": "ckptswap.formats.smp_folder:FORMAT",
        "npz": "ckptswap.formats.npz:FORMAT",
        "keras": "ckptswap.formats.keras:FORMAT",
        "torch.export": "ckptswap.formats.exported:FORMAT",
        "torchscript": "ckptswap.formats.torchscript:FORMAT",
        "torch": "ckptswap.formats.torch_zip:FORMAT",
        "torch-legacy": "ckptswap.formats.torch_legacy:FORMAT",
        "pickle": "ckptswap.formats.plain_pickle:FORMAT",
        "hdf5": "ckptswap.formats.hdf5:FORMAT",
        "onnx": "ckptswap.formats.onnx:FORMAT",
        "gguf": "ckptswap.formats.gguf:FORMAT",
    },
    "checkpoints": {
        "peft": "ckptswap.task.models.adapters:MERGED",
        "https": "ckptswap.remote.sites:HTTPS",
        "http": "ckptswap.remote.sites:HTTP",
        "hf": "ckptswap.remote.hub:HUB",
        "s3": "ckptswap.remote.buckets:S3",
    },
    "executors": {
        "process": "ckptswap.executors.process:build",
        "slurm": "ckptswap.executors.slurm:build",
        "ray": "ckptswap.executors.ray:build",
    },
}
_ERRORS = {"models": ModelError, "data": DataError, "metrics": MetricError}


@dataclass(frozen=True)
class Source:
    """What gives models, data or metrics.

    `build` is a function, or where it lies, so that a declaration costs no import. It raises `ModelError`,
    `DataError` or `MetricError` for what it cannot build. `libraries` are the distributions whose versions decide
    what is built, beside the one that declares it: they go into a run's key. `is_safe`: neither the rest of a spec
    nor arguments can make it run code, open files or ask the network. `endings` are all that may stand behind a
    metric's name (None: anything), and where it is `numbered` any whole number too. `spare` is how many numbers
    building a model makes and drops again. A source of data that `is_told` gets a `DataRequest` of the task, too.
    `builds_on_meta`: it builds a model on the meta device first, so that no argument costs memory uncounted.
    `completed(args, checkpoint)` gives the arguments with what a checkpoint of the model holds of them.
    `file(rest)` is the user's file that the rest of a spec names, whose bytes decide what is built.

    >>> Source("math:hypot", is_safe=True).made(3, 4)
    5.0
    """

    build: Callable[..., Any] | str
    libraries: tuple[str, ...] = ()
    is_safe: bool = False
    endings: tuple[str, ...] | None = None
    numbered: bool = False
    spare: int = 0
    is_told: bool = False
    builds_on_meta: bool = False
    completed: Callable[[Mapping[str, Any], Any], Mapping[str, Any]] | None = None
    file: Callable[[str], str] | None = None

    def made(self, rest: Any, given: Any, *told: Any) -> Any:
        """What `build` gives. Raises what it raises."""
        return (_loaded(self.build) if isinstance(self.build, str) else self.build)(rest, given, *told)


def names(group: Group) -> tuple[str, ...]:
    """Every name of a group: ours, then those of installed packages.

    >>> names("models")[:2]
    ('smp', 'timm')
    """
    return tuple(dict.fromkeys((*_OURS[group], *plugins(group))))


def is_ours(group: Group, name: str) -> bool:
    """Whether the name is in the table of this package."""
    return name in _OURS[group]


def find(group: Group, name: str) -> Any:
    """Import what a name stands for.

    Raises the group's error, with near names, where there is none, `DependencyError` where a package is missing.

    >>> find("metrics", "dcie")
    Traceback (most recent call last):
    ckptswap.errors.MetricError: there is no metric 'dcie': did you mean 'dice'?
    """
    if name in _OURS[group]:
        return _import(group, name, _OURS[group][name], "ckptswap")
    if point := plugins(group).get(name):
        return _import(group, name, point.value, distribution_of(group, name) or point.module)
    remedy = near(name, names(group)) or f"use one of {', '.join(names(group))}"
    raise _ERRORS.get(group, UsageError)(f"there is no {group.removesuffix('s')} {name!r}", remedy=remedy)


def every(group: Group) -> Iterator[Any]:
    """What the names of a group stand for, ours first; packages are asked once these are used up."""
    yield from (find(group, name) for name in _OURS[group])
    yield from (find(group, name) for name in plugins(group) if not is_ours(group, name))


def source_of(group: Group, spec: str) -> tuple[Source, str] | None:
    """The source that a spec `NAME:REST` begins with, and the rest; None where its name is not registered.

    Only a metric may be a name alone.

    >>> source, rest = source_of("models", "lab:unet")
    >>> source.is_safe, rest
    (True, 'unet')
    """
    name, colon, rest = spec.partition(":")
    is_complete = bool(colon) or group == "metrics"
    if not is_complete or not (is_ours(group, name) or name in plugins(group)):
        return None
    source = find(group, name)
    if not isinstance(source, Source):
        what = f"the {group.removesuffix('s')} {name!r} is a {type(source).__name__}"
        raise DependencyError(what, remedy="its package must declare a ckptswap.registry.Source")
    return source, rest


def is_safe(group: Group, spec: str) -> bool:
    """Whether a stranger's file may name this: its source is registered, and says so.

    >>> is_safe("models", "smp:Unet"), is_safe("models", "net.py:build"), is_safe("data", "scans/train")
    (True, False, False)
    """
    known = source_of(group, spec)
    return known is not None and known[0].is_safe


@cache
def plugins(group: Group) -> dict[str, Any]:
    """The entry points of installed packages, by name; one with a name of ours is never used (doctor says so)."""
    from importlib.metadata import entry_points  # which takes long beside the start of a command

    return {point.name: point for point in entry_points(group=f"ckptswap.{group}")}


def distribution_of(group: Group, name: str) -> str | None:
    """The name of the installed package that a name comes from; None for ours."""
    point = None if is_ours(group, name) else plugins(group).get(name)
    return point.dist.name if point and point.dist else None


def extra_for(module: str, package: str = "ckptswap") -> str | None:
    """The extra of a package that brings a module, by the package's own metadata.

    >>> extra_for("submitit"), extra_for("nilearn.datasets"), extra_for("torch")
    ('slurm', 'demo', None)
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires(package) or ()
    except PackageNotFoundError:
        return None
    for requirement in requirements:
        wanted = match(r"""([\w.-]+)[^;\[]*;.*extra == ["']([\w-]+)["']""", requirement)
        if wanted and wanted[1].replace("-", "_") == module.partition(".")[0]:
            return wanted[2]
    return None


def library(module: str) -> ModuleType:
    """Import a library that a source is built on. Raises `DependencyError` with the `pip install` that brings it.

    >>> library("no_such_library")
    Traceback (most recent call last):
    ckptswap.errors.DependencyError: no_such_library is not installed: pip install no_such_library
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        extra = extra_for(missing)
        remedy = f"pip install 'ckptswap[{extra}]'" if extra else f"pip install {missing}"
        raise DependencyError(f"{missing} is not installed", remedy=remedy) from None


def _import(group: Group, name: str, target: str, package: str) -> Any:
    word = group.removesuffix("s")
    try:
        return _loaded(target)
    except ModuleNotFoundError as error:
        extra = extra_for(error.name or "", package)
        remedy = f"pip install '{package}[{extra}]'" if extra else f"install {error.name}"
        raise DependencyError(f"the {word} {name!r} needs {error.name}", remedy=remedy) from None
    except Exception as error:  # another's package may raise anything
        fault = f"the {word} {name!r} of {package} is broken ({type(error).__name__}: {error})"
        raise DependencyError(fault, remedy="install it again") from error


def _loaded(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
