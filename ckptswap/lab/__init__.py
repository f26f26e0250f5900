"""The paper's experiment: its two networks, its data, training, and its four claims (arXiv:2008.03414)."""

from ckptswap.registry import Source

MODELS = Source("ckptswap.lab.networks:built", is_safe=True)
DATA = Source("ckptswap.lab.data:opened", is_safe=True, libraries=("nilearn",))
