"""What stands behind the names of data: declarations, that cost no import of torch."""

from ckptswap.registry import Source

TEXT = Source("ckptswap.task.data.text:built", libraries=("transformers", "tokenizers"), is_told=True)
DATASETS = Source("ckptswap.task.data.arrow:built", libraries=("datasets",), is_told=True)
NPZ = Source("ckptswap.task.data.npz:built", is_told=True)
RANDOM = Source("ckptswap.task.data.random:built", is_safe=True, is_told=True)
