"""Property tests draw the same examples every time, and no example is judged by how long it took."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ckptswap", derandomize=True, deadline=None, database=None)
settings.load_profile("ckptswap")
