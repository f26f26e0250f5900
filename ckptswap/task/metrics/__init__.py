"""Scores with a direction, made of statistics per sample, so that the batch size changes nothing.

One file a metric, found by name through the registry. What is here needs no torch until something is scored, since
`report` asks metrics how their statistics add up.

A threshold hides NaN: nothing here looks for them, `Task.measure` counts them.
"""

from ckptswap.task.metrics.load import load_metrics, metric_names, recorded_metric
from ckptswap.task.metrics.metric import Metric

__all__ = ["Metric", "load_metrics", "metric_names", "recorded_metric"]
