from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

from ckptswap.waiting import SAID_BY, how_threads_wait, let_waiting_threads_sleep

SAY = "import ckptswap.executors.forkserver as _, os; print(os.environ.get('OMP_WAIT_POLICY'))"
"""As a worker begins, or whatever imports any part of ours."""


@pytest.fixture(autouse=True)
def _nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SAID_BY:
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_whatever_imports_us_before_torch_has_threads_that_sleep() -> None:
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert said.stdout == "passive\n"


def test_what_a_person_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    let_waiting_threads_sleep()
    assert how_threads_wait() == "GOMP_SPINCOUNT=1000"


def test_where_torch_is_there_nothing_can_be_said_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    let_waiting_threads_sleep()
    assert how_threads_wait() == ""
    monkeypatch.delitem(sys.modules, "torch")
    let_waiting_threads_sleep()
    assert how_threads_wait() == "OMP_WAIT_POLICY=passive"
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
