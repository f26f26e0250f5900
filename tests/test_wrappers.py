"""What wrappers write into names is found again, wherever they put it, and never makes two tensors one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptswap import wrappers
from ckptswap.wrappers import HOLDER, SEGMENTS, correspondence, plain_name

PARTS = st.sampled_from(["encoder", "0", "1", "head", "model", "module"])
NAME = st.builds(
    lambda path, role: ".".join([*path, role]), st.lists(PARTS, max_size=3), st.sampled_from(["w", "b"])
)
NAMES = st.lists(NAME, min_size=1, max_size=6, unique=True)
WRAPPER = st.sampled_from(SEGMENTS)


@given(NAMES, st.lists(st.sampled_from([*SEGMENTS, HOLDER]), min_size=1, max_size=3))
def test_a_chain_before_all_names_is_taken_off_whatever_the_parts_are_called(
    names: list[str], chain: list[str]
) -> None:
    prefix = ".".join(chain) + "."
    wrapped = [prefix + name for name in names]
    for ours, theirs in ((wrapped, names), (names, wrapped)):
        found = correspondence(ours, theirs).names
        shared = {found.get(name, name) for name in ours} & set(theirs)
        assert len(shared) == len(names), "in any case; and one by one unless a name is in both"
        if not set(names) & set(wrapped):
            assert [found[name] for name in ours] == theirs


@given(NAMES, st.dictionaries(PARTS, WRAPPER, max_size=3))
def test_what_stands_within_is_taken_off_too(names: list[str], wrapped_parts: dict[str, str]) -> None:
    def wrapped(name: str) -> str:
        *path, role = name.split(".")
        return ".".join(
            [*(f"{part}.{wrapped_parts[part]}" if part in wrapped_parts else part for part in path), role]
        )

    ours = [wrapped(name) for name in names]
    found = correspondence(ours, names).names
    assert len({found.get(name, name) for name in ours}) == len(names)
    if len({plain_name(name) for name in names}) == len(names):
        assert sum(found.get(name, name) in names for name in ours) == len(names)


@given(NAMES, NAMES)
def test_two_names_never_become_one_and_no_name_is_lost(names: list[str], reference: list[str]) -> None:
    found, how = correspondence(names, reference)
    new = [found.get(name, name) for name in names]
    assert len(set(new)) == len(new)
    shared = len(set(new) & set(reference))
    assert shared >= len(set(names) & set(reference))
    assert bool(how) == bool(found) == (shared > len(set(names) & set(reference)))


def test_names_of_very_many_parts_take_no_time() -> None:
    long = "module." * 600_000 + "w"
    assert correspondence([long], ["w"]).names == {long: "w"}
    assert correspondence(["." * 100_000 + "w"], ["v"]).names == {}


def test_what_is_told_looks_at_few_parts_of_the_best_only(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    first_parts = wrappers._first_parts
    monkeypatch.setattr(
        wrappers, "_first_parts", lambda name: told.append(len(found := first_parts(name))) or found
    )
    names = ["a." * 4900 + f"{at}.w" for at in range(20)]
    assert len(correspondence(names, [f"x.{name}" for name in names]).names) == 20
    assert len(told) <= 4 * len(names)
    assert max(told, default=0) <= 100
