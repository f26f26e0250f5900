"""What the lab gives to tasks by name: its networks and its data."""

from __future__ import annotations

from ckptswap.registry import Source

MODELS = Source("ckptswap.lab.networks:built", is_safe=True)
DATA = Source("ckptswap.lab.data:opened", is_safe=True, libraries=("nilearn",))
