"""From a metric's name to a `Metric`: for a task, or for what a run folder holds of one."""

from contextlib import suppress

from ckptswap.errors import CkptswapError, MetricError, UsageError, near
from ckptswap.registry import find, is_ours, is_safe, library, names, source_of
from ckptswap.task.callables import faults_of, is_callable_spec
from ckptswap.task.in_memory import PREFIX
from ckptswap.task.metrics import own
from ckptswap.task.metrics.metric import Metric
from ckptswap.task.spec import TaskSpec


def load_metrics(spec: TaskSpec) -> tuple[Metric, ...]:
    """Load the metrics of a task, in order. Raises `MetricError` for a name that does not exist.

    >>> [metric.direction for metric in load_metrics(TaskSpec(metrics=("dice", "mse")))]
    ['max', 'min']
    """
    metrics = tuple(_metric(name, spec) for name in spec.metrics)
    if spec.direction and not any(metric.takes_direction for metric in metrics):
        raise UsageError(f"{spec.metrics[0]} has a direction of its own", remedy="leave --direction out")
    return metrics


def recorded_metric(name: str) -> Metric:
    """The metric by which a run folder was scored, to add up its statistics; runs nothing that a name could bring.

    Raises `MetricError` where it is not registered, or not safe: values of callables are means and need none.

    >>> import numpy as np
    >>> float(recorded_metric("iou:pooled").reduce(np.array([2.0, 1.0, 1.0, 0.0]), np.array(3.0)))
    0.5
    """
    if not is_safe("metrics", name):
        raise _unknown(name)
    return _metric(name, TaskSpec())


def metric_names() -> tuple[str, ...]:
    """Every metric's name, and what may stand behind it; of other packages the bare names."""
    ours = [name for name in names("metrics") if is_ours("metrics", name)]
    endings = {name: find("metrics", name).endings or () for name in ours}
    pooled = [f"{name}:{ending}" for name in ours for ending in endings[name]]
    return (*names("metrics"), *pooled)


def _metric(name: str, spec: TaskSpec) -> Metric:
    registered = source_of("metrics", name)
    if name.startswith(PREFIX):
        return own.held(name, spec.direction)
    if registered is None and is_callable_spec(name):
        return own.built(name, spec.direction)
    if registered is not None:
        source, ending = registered
        is_number = source.numbered and ending.isdecimal() and ending.isascii()
        if ":" not in name or source.endings is None or ending in source.endings or is_number:
            with faults_of(name, MetricError):
                metric = source.made(ending, spec)
            return _checked(metric, name, is_safe=source.is_safe)
    raise _unknown(name)


def _unknown(name: str) -> MetricError:
    known = metric_names()
    plain = name.lower().replace("_", "-")
    meant = next((ours for ours, others in _CALLED.items() if plain in others), plain if plain in known else None)
    if meant is None and _is_torchmetric(name):
        meant = f"torchmetrics:{name}"
    remedy = f"did you mean {meant!r}?" if meant else near(name, known)
    return MetricError(
        f"there is no metric {name!r}", remedy=remedy or f"use one of {', '.join(known)}, or file.py:function"
    )


def _is_torchmetric(name: str) -> bool:
    with suppress(CkptswapError):
        return name[:1].isupper() and hasattr(library("torchmetrics"), name)
    return False


_CALLED = {
    "accuracy": ("acc", "pixel-accuracy", "pixel-acc"),
    "top1": ("top-1", "acc1", "acc@1", "top1-acc", "top1-accuracy", "exact-match"),
    "top5": ("top-5", "acc5", "acc@5", "top5-acc", "top5-accuracy"),
    "iou": ("miou", "mean-iou", "jaccard", "jaccard-index"),
    "dice": ("f1", "f1-score", "dsc", "dice-score", "mean-dice"),
    "loss": ("ce", "cross-entropy", "crossentropy", "xent", "nll", "log-loss", "bce", "val-loss"),
    "perplexity": ("ppl",),
    "mse": ("l2", "rmse", "mean-squared-error"),
    "kl": ("kld", "kl-div", "kl-divergence"),
    "agreement": ("agree", "match"),
    "output-mse": ("out-mse", "logit-mse"),
    "torchmetrics:MeanAbsoluteError": ("mae", "l1", "mean-absolute-error"),
    "torchmetrics:StructuralSimilarityIndexMeasure": ("ssim",),
    "torchmetrics:AUROC": ("auc", "auroc", "roc-auc"),
    "torchmetrics:R2Score": ("r2",),
}
"""What else people call a metric; dashes stand for underscores too."""


def _checked(metric: object, name: str, *, is_safe: bool) -> Metric:
    """Hold a source of metrics to what the registry asks of it."""
    if not isinstance(metric, Metric) or metric.name != name:
        raise MetricError(f"{name} gave {metric!r}", remedy=f"its source must give a Metric that is named {name}")
    if not (
        is_safe or metric.is_mean or metric.is_of_set
    ):  # nobody could add its statistics up without running it
        raise MetricError(f"{name} is not safe and not a mean", remedy="give one value a sample")
    return metric
