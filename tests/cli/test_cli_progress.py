"""The bar on stderr: it comes when the work takes longer than a second, and only where somebody can see it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from cli_program import SWAP, good

from ckptswap.cli import terminal
from ckptswap.cli.terminal import Meter

A, B = "init.safetensors", "segment.safetensors"
WORK = {
    "comparing": ["diff", A, B],
    "writing": ["transplant", *SWAP, "-o", "out.safetensors"],
    "converting": ["convert", A, "out.npz"],
    "reading": ["show", A, "--stats"],
    "verifying": ["verify", A],
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes only when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(terminal, "time", found)
    return found


def test_a_bar_appears_after_a_second_and_goes_when_the_work_is_done(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(Terminal()) as screen, Meter("comparing") as tell:
        tell(1, 10)
        clock.now += 0.9
        tell(2, 10)
        assert screen.getvalue() == ""
        clock.now += 0.2
        tell(3, 10)
        assert "comparing" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K"), "the line is not wiped"


def test_elsewhere_it_is_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("comparing", " bytes") as meter:
        for done in range(0, 60, 10):
            meter(done, 100)
            clock.now += 31
    assert capsys.readouterr().err.splitlines() == [
        "comparing: 20 of 100 bytes, about 248 s left",
        "comparing: 40 of 100 bytes, about 186 s left",
    ]


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("what", WORK)
def test_every_command_that_may_take_long_tells_how_far_it_is(
    work: Path, what: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first byte, a checksum's included, to the last."""
    if suffix == "pt":
        for path in (A, B, SWAP[1]):
            good("convert", path, Path(path).with_suffix(".pt"))
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Meter, "__call__", lambda meter, done, total: told.append((meter.what, done, total)))
    good(*(word.replace(".safetensors", f".{suffix}") for word in WORK[what]))
    assert {word for word, _, _ in told} == {what}
    assert len({total for _, _, total in told}) == 1
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == told[-1][2]


def test_what_the_work_tells_of_itself_stands_under_the_bar(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    lines = [f"layer{at} conv.weight +0.{at}" for at in range(5)]
    with contextlib.redirect_stderr(Terminal()) as screen, Meter("sweep") as tell:
        tell(1, 10)
        clock.now += 1.1
        tell(2, 10, below=lines)
    assert all(line in screen.getvalue() for line in lines)


def test_a_log_has_the_first_two_of_them(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("sweep", " blocks")
    meter(0, 100)
    clock.now += 61
    meter(10, 100, below=["worst so far: a +0.5", "b +0.4", "c +0.3"])
    assert "left worst so far: a +0.5; b +0.4\n" in capsys.readouterr().err
