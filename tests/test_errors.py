"""Errors that people meet: one message, one remedy, one exit code."""

from __future__ import annotations

import inspect

import pytest

from ckptswap import errors
from ckptswap.errors import CkptswapError, listing, near

EVERY = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, CkptswapError)]


@pytest.mark.parametrize("kind", EVERY)
def test_each_says_what_and_what_to_do(kind: type[CkptswapError]) -> None:
    error = kind("a.pt is empty", remedy="save it again")
    assert str(error) == "a.pt is empty: save it again"
    assert (error.message, error.remedy) == ("a.pt is empty", "save it again")
    assert error.exit_code == {errors.Stopped: 130}.get(kind, 2)
    assert kind.__doc__


def test_without_a_remedy_the_message_stands_alone() -> None:
    assert str(CkptswapError("a.pt is empty")) == "a.pt is empty"


def test_near_names() -> None:
    assert near("encoder.wieght", ["encoder.weight", "x"]) == "did you mean 'encoder.weight'?"
    assert near("abc1", ["abc2", "abc3"]) in ("did you mean 'abc3' or 'abc2'?", "did you mean 'abc2' or 'abc3'?")
    assert near("abc1", ["abc2", "abc3"], count=1).count("'") == 2
    assert near("abc", ["xyz"]) == ""
    assert near("a\nb", ["a\nc"], count=1) == "did you mean 'a\\nc'?"


def test_near_does_not_compare_what_is_endless() -> None:
    assert near("a" * 100_000, ["a" * 100_001]) == ""


def test_a_listing_stops_and_counts() -> None:
    names = [str(at) for at in range(13)]
    assert listing(names) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"
    assert listing(names[:10]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listing([]) == ""
