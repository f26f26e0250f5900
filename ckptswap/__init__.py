"""ckptswap: checkpoints as maps from names to tensors, to diff, transplant, evaluate and sweep."""

from ckptswap.version import __version__

__all__ = ["__version__"]
