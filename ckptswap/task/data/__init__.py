"""What a model is scored on: one file a source, found by name through the registry; folders are known by their look."""

from ckptswap.task.data.loading import MEMORY, Batch, Data, Progress, load_data

__all__ = ["MEMORY", "Batch", "Data", "Progress", "load_data"]
