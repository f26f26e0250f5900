"""A task: a model that holds one checkpoint at a time, data, and metrics; one pass gives the statistics."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, listing
from ckptswap.task import known_by
from ckptswap.task.callables import faults_of
from ckptswap.task.constant import Constants
from ckptswap.task.data import Batch, Data, Progress, load_data
from ckptswap.task.data.loading import implied
from ckptswap.task.data.request import folder_of
from ckptswap.task.diagnosis import diagnosed
from ckptswap.task.fit import Fit
from ckptswap.task.libraries import code_hashes, versions_of
from ckptswap.task.loaded import INITIAL_SEED, Loaded, float_dtype, load_model
from ckptswap.task.metrics import Metric, load_metrics
from ckptswap.task.metrics.overlap import Overlap
from ckptswap.task.models.build import depends_on_batch
from ckptswap.task.models.named import target_of
from ckptswap.task.mutation import Watch
from ckptswap.task.order import in_data_order
from ckptswap.task.outputs import extent, picked_of
from ckptswap.task.spec import TaskSpec
from ckptswap.task.threads import pinned_threads
from ckptswap.task.tree import Tree, call, described, mapped, not_taken, size_of, taken
from ckptswap.task.weights import load_into

_NAMED = (
    "it is given a dict by its arguments' names, or whole; give samples (input, target) if it takes one tensor"
)
_FIT = "channels and size of the images must be what the model takes (its in_channels, for example)"
_LIKE_PROBABILITIES = (
    "all outputs lie in 0…1 and are read as logits: if the model ends in a sigmoid, say --output probability"
)
_LIKE_LOGITS = "outputs leave 0…1 and are read as probabilities: if they are logits, leave --output out"

__all__ = ["Measured", "Progress", "Task", "load_task"]


@dataclass(frozen=True)
class Measured:
    """One pass: statistics (N, K) by metric name, samples in the data's order; how many output elements are NaN or
    infinite; and warnings."""

    statistics: Mapping[str, np.ndarray]
    nonfinite: int
    warnings: tuple[str, ...] = ()

    @property
    def fault(self) -> str | None:
        """Why the statistics cannot be used, if they cannot."""
        return _fault(self.statistics, self.nonfinite)


@dataclass(frozen=True)
class Score:
    """One output: statistics (n, K) by metric name, how many of its elements are NaN or infinite, the range of the
    others (None without any), and whether it has one channel."""

    statistics: dict[str, np.ndarray]
    nonfinite: int
    low: float | None
    high: float | None
    one_channel: bool

    @property
    def fault(self) -> str | None:
        """Why the statistics cannot be used, if they cannot."""
        return _fault(self.statistics, self.nonfinite)


def _fault(statistics: Mapping[str, np.ndarray], nonfinite: int) -> str | None:
    """Thresholded metrics hide NaN outputs, so these are counted."""
    if nonfinite:
        return f"{nonfinite} of the model's outputs are NaN or infinite"
    for metric, values in statistics.items():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        if bad:
            return f"the metric {metric} is NaN or infinite for {bad} of {len(values)} samples"
    return None


@dataclass
class Task:
    """What 'score' means. `spec` names the model even where the checkpoint said it; the model is in eval mode.

    `fit` is how the checkpoint went in, `initial` a hash of the values that stay as initialised, where there are
    any. What is scored without labels is compared with the outputs of `reference`, or of the task itself.
    """

    spec: TaskSpec
    model: nn.Module
    metrics: tuple[Metric, ...]
    data: Data
    fit: Fit
    warnings: tuple[str, ...] = ()
    initial: str | None = None
    reference: "Task | None" = None

    @property
    def groups(self) -> np.ndarray:
        """Each sample's group (N,) int64."""
        return self.data.groups

    @property
    def samples(self) -> int:
        return self.data.samples

    def load(self, checkpoint: Checkpoint) -> None:
        """Put every tensor of the checkpoint into the model. Raises `MismatchError`, and then changes nothing."""
        load_into(self.model, checkpoint, exclude=self.spec.exclude, partial=self.spec.partial)

    def batches(self) -> Generator[Batch]:
        """The batches on the CPU, always the same in the same order. For use inside `pinned`."""
        return self.data.batches()

    def forward(self, inputs: Tree) -> Tensor:
        """The model's output (N, …) for one batch of inputs, on the task's device.

        The model gets a copy, which it may write to. Raises `ModelError`, also where it changes its own tensors.
        """
        inputs = self.prepared(inputs)
        what, remedy = f"the model, on input {described(inputs)},", _NAMED if isinstance(inputs, dict) else _FIT
        with torch.inference_mode():
            try:
                with self.watch.unchanged(), faults_of(what, ModelError, remedy):
                    given = call(self.model, inputs)
            except ModelError as failure:
                raise diagnosed(self.model, inputs, str(failure)) or failure from failure.__cause__
            output = self.pick(given)
        if not output.dim() or len(output) != size_of(inputs):
            raise ModelError(
                f"the model gives {list(output.shape)} for {size_of(inputs)} samples",
                remedy="one output a sample is needed",
            )
        return output

    def prepared(self, inputs: Tree) -> Tree:
        """What of a batch the model takes, as it takes it: a copy, on its device, floats of its dtype."""
        floats = float_dtype(self.model)
        return mapped(
            lambda leaf: leaf.to(self.spec.device, floats if leaf.is_floating_point() else leaf.dtype, copy=True),
            taken(self.model, inputs),
        )

    def pick(self, given: object) -> Tensor:
        """The one tensor to score of what the model gives, in at least single precision. Raises `ModelError`."""
        output = picked_of(given, self.spec.output_key)
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output

    def first_inputs(self) -> Tree:
        """The inputs of the first batch."""
        return self.inputs_of(0)

    def inputs_of(self, number: int) -> Tree:
        """The inputs of a batch."""
        with self.pinned(), closing(self.data.numbered({number})) as batches:
            _, batch = next(batches)
            return batch.inputs

    def scored_against(self, batch: Batch) -> Callable[[Tensor], Score]:
        """From a batch to a function that scores outputs for it; both may raise `MetricError`.

        For metrics without labels the model runs, and must hold the recipient.
        """
        own = cache(lambda: (self.reference or self).forward(batch.inputs))
        measures = {
            metric.name: metric.against(metric.truth(batch.inputs, batch.targets, own)) for metric in self.metrics
        }

        def score(output: Tensor) -> Score:
            bad, low, high = extent(output)
            statistics = {name: measure(output) for name, measure in measures.items()}
            finite = low <= high
            one_channel = output.dim() < 4 or output.shape[1] == 1
            return Score(statistics, bad, low if finite else None, high if finite else None, one_channel)

        return score

    def measure(
        self,
        progress: Progress | None = None,
        variant: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Measured:
        """One full pass, with threads pinned. Raises `ModelError` or `MetricError`.

        The model holds a `variant` for outputs alone: what these are compared with may be the recipient's own.
        """
        parts: dict[str, list[np.ndarray]] = {metric.name: [] for metric in self.metrics}
        scores: list[Score] = []
        done = 0
        with self.pinned(), closing(self.batches()) as batches:
            for batch in batches:
                score = self.scored_against(batch)
                with variant():
                    output = self.forward(batch.inputs)
                scores.append(score(output))
                for name, values in scores[-1].statistics.items():
                    parts[name].append(values)
                done += len(batch)
                if progress:
                    progress(done, self.samples)
        statistics = {name: in_data_order(values, self.data.places) for name, values in parts.items()}
        low = min((score.low for score in scores if score.low is not None), default=None)
        high = max((score.high for score in scores if score.high is not None), default=None)
        warnings = self.warnings + self.range_warnings(low, high, one_channel=scores[-1].one_channel)
        return Measured(statistics, sum(score.nonfinite for score in scores), warnings)

    def trivial(self, metric: Metric) -> float:
        """The score of a prediction that looks at nothing, the zero of the default tolerance.

        iou, dice, accuracy: the best of the constant classes. mse, psnr: the mean of all target elements,
        everywhere. loss and its like: how frequent each class is. A callable: outputs of zeros, shaped like the
        model's. Without labels: what the recipient says on the whole.
        """
        with self.pinned():
            return metric.trivial(Constants(metric, self.data, (self.reference or self).forward)) + 0.0  # no −0

    def identity(self) -> dict[str, Any]:
        """All that decides a score but the checkpoint: spec, the data's bytes, the user's files, versions.

        `batches` tells ready-made ones apart, and is None for others, which the spec decides.
        """
        return {
            "task": self.spec.as_dict(),
            "data": self.data.fingerprint(),
            "batches": self.data.composition(),
            "code": code_hashes(self.spec) | self._known_by(),
            "dtype": str(next((parameter.dtype for parameter in self.model.parameters()), None)),
            "versions": versions_of(self.spec, self.model),
            "CPU": torch.backends.cpu.get_cpu_capability(),
        } | ({"initial values": self.initial} if self.initial else {})

    def _known_by(self) -> dict[str, str]:
        """What stands for the files of what is in memory; the model holds the recipient."""
        if not known_by.in_memory(self.spec):
            return {}
        with self.pinned(), closing(self.data.numbered({0})) as batches:
            _, batch = next(batches)
            output = self.forward(batch.inputs)
            statistics = self.scored_against(batch)(output).statistics
        return known_by.hashes(self.spec, self.model, output, statistics)

    @cached_property
    def watch(self) -> Watch:
        """Knows whether the model changes its own tensors, and what it keeps beside them."""
        return Watch(self.model)

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """The spec's number of threads, and on a GPU deterministic algorithms; as it was afterwards."""
        benchmark, mode = torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()
        if (
            torch.device(self.spec.device).type != "cpu"
        ):  # on the CPU it would only fill fresh memory, and cost time
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with pinned_threads(self.spec.threads):
                yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            torch.set_deterministic_debug_mode(mode)

    def range_warnings(self, low: float | None, high: float | None, *, one_channel: bool) -> tuple[str, ...]:
        """What the range of all outputs says of `--output`."""
        overlaps = any(isinstance(metric, Overlap) for metric in self.metrics)
        if not one_channel or low is None or high is None or not overlaps:
            return ()
        within = low >= 0 and high <= 1
        if within and self.spec.output == "logits":
            return (_LIKE_PROBABILITIES,)
        if not within and self.spec.output == "probability":
            return (_LIKE_LOGITS,)
        return ()


def load_task(
    spec: TaskSpec,
    checkpoint: Checkpoint,
    *,
    data: Data | None = None,
    loaded: Loaded | None = None,
) -> Task:
    """Build model, metrics and data, and load the checkpoint; `data` may be shared with another task.

    The model is the spec's, or else what the checkpoint says of itself; `loaded` is what `load_model` gave for it.
    Raises `TaskError`, `MismatchError` or `UsageError`.

    >>> from ckptswap.task.models.build import build_model
    >>> weights = {name: own.numpy() for name, own in build_model("lab:unet", {"width": 2}).state_dict().items()}
    >>> told = {"ckptswap.model": "lab:unet", "ckptswap.model_args": '{"width": 2}'}
    >>> spec = TaskSpec(data="lab:mni", metrics=("dice",), limit=4)
    >>> load_task(spec, Checkpoint.from_arrays(weights, metadata=told)).measure().statistics["dice"].shape
    (4, 1)
    """
    metrics = load_metrics(implied(spec))
    built = loaded or load_model(spec, checkpoint)
    spec, model, fit = built.spec, built.model, built.fit
    data = data or load_data(spec, folder=folder_of(checkpoint))
    warnings = (*_warnings(spec, model, checkpoint), *_incomplete(fit, spec), *_left_out(data, model))
    return Task(spec, model, metrics, data, fit, warnings, built.initial)


def _left_out(data: Data, model: nn.Module) -> list[str]:
    names = not_taken(model, data.names) if data.names else ()
    return [f"the model has no argument {listing(names)}, which is left out of what it is given"] if names else []


def _incomplete(fit: Fit, spec: TaskSpec) -> list[str]:
    """A score of a model that is only partly the checkpoint's is no score of the checkpoint."""
    if not fit.kept:
        return []
    return [
        f"{fit.checkpoint.path}: {len(fit.kept)} of the model's tensors are not in it, or do not fit, and stay as "
        f"initialised (seed {INITIAL_SEED}): {listing(fit.kept)}; {spec.model} is scored with these"
    ]


def _warnings(spec: TaskSpec, model: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    warnings = []
    if spec.dtype is not None or torch.device(spec.device).type != "cpu":
        dtype = str(float_dtype(model)).removeprefix("torch.")
        warnings.append(
            f"computed in {dtype} on {spec.device}: the last bits are not those of other dtypes and devices"
        )
    target = target_of(checkpoint)
    if target is not None and target != spec.target:
        warnings.append(f"{checkpoint.path} was trained to give {target}, and is scored against {spec.target}")
    if depends_on_batch(model):
        warnings.append("a batch norm without running statistics makes scores depend on the batch size")
    return tuple(warnings)
