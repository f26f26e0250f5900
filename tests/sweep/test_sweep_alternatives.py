"""Cheaper sweeps that are named where one takes long."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ckptswap.sweep.alternatives import LONG, Effort, alternatives
from ckptswap.sweep.spec import samples_of, seconds_of

SECONDS = st.floats(0, 1e6)
EFFORTS = st.builds(
    Effort, SECONDS, SECONDS, st.none() | SECONDS, st.integers(1, 10**6), st.integers(0, 99),
    st.none() | st.floats(0, 1), st.booleans(),
)  # fmt: skip
HOUR = Effort(5.0, 3600.0, 120.0, samples=400, kinds=9, probable=0.2)


@given(EFFORTS)
def test_only_what_is_long_has_cheaper_ways_and_the_cheapest_come_first(effort: Effort) -> None:
    ways = alternatives(effort)
    times = [way.seconds for way in ways]
    assert len(ways) <= 2
    assert times == sorted(times)
    assert not ways or effort.preparation + effort.scoring > LONG
    assert all(effort.preparation <= time < effort.whole for time in times)


def test_each_way_is_of_flags_that_the_command_takes() -> None:
    screen, kinds, decide = (way.flags.split() for way in alternatives(HOUR, most=3))
    assert (kinds, decide) == (["--by", "kind", "--limit", "190"], ["--decide"])
    assert (samples_of(screen[1]), seconds_of(screen[3])) == (4, 120.0)


def test_what_cannot_be_told_is_not_named() -> None:
    bare = replace(HOUR, whole_pass=None, probable=None, can_screen=False)
    assert alternatives(bare) == alternatives(replace(bare, whole_pass=120.0, kinds=0)) == []
