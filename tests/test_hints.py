"""Flags that bring names together are tried, name no more than they should, and are quoted for a shell."""

from __future__ import annotations

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.hints import exclusions, flags_for, joining_flags, names_apart, prefix_rules, with_flags
from ckptswap.selection import Selection


def named(*names: str, path: str = "a.pt") -> Checkpoint:
    return Checkpoint.from_arrays({name: np.zeros(len(name.rpartition(".")[2])) for name in names}, path=path)


@pytest.mark.parametrize(
    ("extra", "fitting", "patterns"),
    [
        (["loss.a", "loss.b", "n"], ["fc.bias"], ["loss.*", "n"]),
        (["net.aux.w", "net.aux.v"], ["net.fc.w"], ["net.aux.*"]),
        (["net.w"], ["net.fc.w"], ["net.w"]),
        (["a,b", "*", "x[1]"], ["fc.w"], ["=a,b", "=*", "=x[1]"]),
        (["w.*.v", "w.u"], ["fc.w"], ["w.*"]),
        (["=a"], ["fc.w"], ["==a"]),
    ],
)
def test_exclusions_name_all_that_is_extra_and_nothing_that_fits(
    extra: list[str], fitting: list[str], patterns: list[str]
) -> None:
    checkpoint = named(*extra, *fitting)
    found = exclusions([checkpoint[name] for name in extra], [checkpoint[name] for name in fitting])
    assert found == patterns
    means = Selection.parse(only=found)
    assert [entry.name for entry in checkpoint.values() if entry in means] == extra


def test_a_pattern_that_is_also_a_kind_names_its_tensors_one_by_one() -> None:
    """`bn.*` would also be all batch norms of the network."""
    checkpoint = named("bn.extra", "layer.running_mean", "layer.weight")
    assert checkpoint["layer.weight"].kind == "bn.weight"
    fitting = [checkpoint["layer.running_mean"], checkpoint["layer.weight"]]
    assert exclusions([checkpoint["bn.extra"]], fitting) == ["=bn.extra"]


@pytest.mark.parametrize(
    ("ours", "theirs", "flags"),
    [
        (["net.a.w", "net.b.vv"], ["a.w", "b.vv"], ["--strip-prefix", "net."]),
        (["a.w", "b.vv"], ["net.a.w", "net.b.vv"], ["--map", "*=net.*"]),
        (["x.1.w", "x.1.vv", "h.w"], ["y.1.w", "y.1.vv", "h.w"], ["--map", "x.*=y.*"]),
        (["x[0].w", "x[0].vv", "h.w"], ["y.w", "y.vv", "h.w"], ["--map", "x[[]0].*=y.*"]),
        (["x.w"], ["y.w"], []),
        (["x.w", "x.vv"], ["y.www", "y.v"], []),
        (["x=.w", "x=.vv"], ["y*.w", "y*.vv"], []),
    ],
)
def test_prefixes_are_exchanged_where_two_tensors_or_more_agree(
    ours: list[str], theirs: list[str], flags: list[str]
) -> None:
    a, b = named(*ours), named(*theirs)
    rules = prefix_rules(*({name: entry.shape for name, entry in side.items()} for side in (a, b)))
    assert flags_for(rules) == flags
    if flags:
        assert set(with_flags(a, flags)) == set(b)


def test_several_rules_are_named_the_narrowest_first() -> None:
    ours = named("a.w", "a.vv", "a.b.w", "a.b.vv", "a.b.uuu")
    theirs = named("c.w", "c.vv", "d.w", "d.vv", "d.uuu")
    flags, gained = joining_flags(ours, theirs)
    assert flags == ["--map", "a.b.*=d.*", "--map", "a.*=c.*"]
    assert gained == 5


def test_names_that_are_apart_are_told_and_others_not() -> None:
    a, b = named("x.w", "x.vv", "h.w"), named("y.w", "y.vv", "h.w", path="b.pt")
    assert names_apart(a, b) == "a.pt and b.pt share 1 names; with --map 'x.*=y.*' 2 more are the same"
    assert names_apart(a, named("q", path="b.pt")) == "no tensor of a.pt has the name of one of b.pt"
    assert names_apart(a, a) is None
    assert names_apart(a, named("h.w", "other")) is None
    assert names_apart(named("module.h.w"), named("h.w")) is None
