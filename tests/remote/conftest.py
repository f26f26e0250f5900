from __future__ import annotations

from collections.abc import Iterator

import pytest
from far_server import FarServer, serving

from ckptswap.remote import web


@pytest.fixture
def far() -> Iterator[FarServer]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited: nobody does."""
    slept: list[float] = []
    monkeypatch.setattr(web.CLOCK, "sleep", slept.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return slept
