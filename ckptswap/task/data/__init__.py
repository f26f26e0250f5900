"""What a model is scored on: one file a source, found by name through the registry, or a folder that is known by
its look."""

from ckptswap.task.data.loading import MEMORY, Batch, Data, Progress, load_data

__all__ = ["MEMORY", "Batch", "Data", "Progress", "load_data"]
