"""Names that don't match: rules, prefixes, and what is found by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, MismatchError, UsageError
from ckptswap.renaming import Rule, aligned, all_matched, map_all, matched, parse_rules, renamed, strip_all

NAMES = st.lists(st.text("ab.", min_size=1, max_size=6), min_size=1, max_size=6, unique=True)


def named(*names: str) -> Checkpoint:
    return Checkpoint.from_arrays({name: np.full(1, at, np.float32) for at, name in enumerate(names)})


@pytest.mark.parametrize(
    ("rule", "name", "new"),
    [
        ("a.weight=b.weight", "a.weight", "b.weight"),
        ("a.weight=b.weight", "a.weight2", None),
        ("net.*.w=*.weight", "net.1.2.w", "1.2.weight"),
        ("*.a.*=*.b.*", "x.a.y", "x.b.y"),
        ("a?=b", "a1", "b"),
        ("a[12]=b", "a3", None),
        ("a.*=b\\1.*", "a.c", "b\\1.c"),
        (r"re:(\w+)\.w=\1.weight", "conv.w", "conv.weight"),
        (r"re:x(?=y)y=z", "xy", "z"),
        ("*=m.*", "a\nb", "m.a\nb"),
    ],
)
def test_a_rule_speaks_of_whole_names(rule: str, name: str, new: str | None) -> None:
    assert Rule.parse(rule)(name) == new


@pytest.mark.parametrize("rule", ["a", "=b", "a=", "re:(=b", r"re:a=\1", "a=*", "a.*=*.*"])
def test_a_rule_that_cannot_be_read_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="--map"):
        Rule.parse(rule)


def test_the_first_fitting_rule_wins_and_one_that_fits_nothing_is_named() -> None:
    rules = parse_rules(["a.*=x.*", "*.w=*.weight"])
    [found] = map_all([named("a.w", "b.w", "c")], rules)
    assert list(found) == ["x.w", "b.weight", "c"]
    with pytest.raises(UsageError, match=r"'b\.\*=x\.\*' fits no tensor"):
        map_all([named("a.w"), named("c.w")], parse_rules(["b.*=x.*"]))


def test_a_map_file_has_a_rule_a_line(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("# ours to theirs\n\na=b\n  c=d  \n")
    assert [rule.text for rule in parse_rules(["x=y"], tmp_path / "rules")] == ["x=y", "a=b", "c=d"]
    with pytest.raises(FileError, match="does not exist"):
        parse_rules((), tmp_path / "nothing")


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(MismatchError, match="the name 'b'"):
        renamed(named("a", "b"), {"a": "b"})


@given(NAMES)
def test_renaming_keeps_values_order_and_remembers_the_files_names(names: list[str]) -> None:
    checkpoint = named(*names)
    first = renamed(checkpoint, {name: f"m.{name}" for name in names})
    second = renamed(first, {f"m.{name}": f"n.{name}" for name in names})
    assert list(second) == [f"n.{name}" for name in names]
    assert second.renames == {name: f"n.{name}" for name in names}
    assert all(second.read(f"n.{name}") == checkpoint.read(name) for name in names)
    assert renamed(second, {f"n.{name}": name for name in names}).renames == {}


@given(NAMES, st.sampled_from(["module.", "_orig_mod.", "model.net."]))
def test_one_prefix_is_found_on_either_side(names: list[str], prefix: str) -> None:
    plain, wrapped = named(*names), named(*(prefix + name for name in names))
    if not set(plain) & set(wrapped):
        assert set(aligned(plain, wrapped)[0]) == set(wrapped)
        found, said = aligned(wrapped, plain)
        assert set(found) & set(plain)
        assert said


def test_names_that_share_one_lose_no_prefix_but_a_wrappers() -> None:
    other, reference = named("a", "net.b"), named("a", "b")
    assert aligned(other, reference) == (other, None)
    found, said = aligned(named("a", "module.b"), reference)
    assert list(found) == ["a", "b"]
    assert said == "1 of the 2 tensors of <memory> are taken without the prefix 'module.', to match <memory>"


PLAIN = ("encoder.0.weight", "encoder.1.weight", "head.weight")


@pytest.mark.parametrize(
    ("names", "reference"),
    [
        (["module._orig_mod." + name for name in PLAIN], PLAIN),
        ([name.replace("encoder.", "encoder._orig_mod.") for name in PLAIN], PLAIN),
        ([name.replace("encoder.", "encoder.module.") for name in PLAIN], PLAIN),
        ([f"_fsdp_wrapped_module.{name.replace('.0', '.0._checkpoint_wrapped_module')}" for name in PLAIN], PLAIN),
        (["module." + name for name in PLAIN], ["_orig_mod." + name for name in PLAIN]),
        (["model.module." + name for name in PLAIN], ["module.model." + name for name in PLAIN]),
        (["model._forward_module.model." + name for name in PLAIN], PLAIN),
        (["backbone." + name for name in PLAIN], ["module." + name for name in PLAIN]),
        # Networks with parts of these very names.
        (["module.module.w", "module.w"], ["module.w", "w"]),
        (["module.model.w", "module.head.w"], ["model.w", "head.w"]),
        (["model.model.layers.0.w", "model.lm_head.w"], ["model.layers.0.w", "lm_head.w"]),
    ],
)  # fmt: skip
def test_what_wrappers_write_is_taken_off_either_side(names: list[str], reference: list[str]) -> None:
    for ours, theirs in ((names, reference), (reference, names)):
        for left_over in ([], ["n_averaged"]) if "backbone" not in names[0] else ([],):
            found, said = aligned(named(*ours, *left_over), named(*theirs))
            assert list(found) == [*theirs, *left_over]
            assert said


@pytest.mark.parametrize(
    ("names", "reference"),
    [
        (["w", "module.w"], ["w"]),  # both are there: nothing needs to be taken off
        (["a.w", "module.a.w", "module.b.w"], ["a.w", "b.w", "c.w"]),  # two tensors would have one name
        (["teacher.w", "student.w"], ["w"]),
        (["a.w"], ["b.w"]),
        ([], ["w"]),
    ],
)
def test_names_that_wrappers_do_not_explain_are_left_alone(names: list[str], reference: list[str]) -> None:
    other = named(*names)
    assert aligned(other, named(*reference)) == (other, None)


def test_a_named_prefix_comes_off_both_sides() -> None:
    other, reference, said = matched(named("m.a"), named("m.a", "b"), strip_prefix="m.")
    assert (list(other), list(reference), said) == (["a"], ["a", "b"], None)
    with pytest.raises(UsageError, match="--strip-prefix"):
        strip_all([named("a")], "m.")


@pytest.mark.parametrize("odd", range(3))
@pytest.mark.parametrize("how", ["strip_prefix", "rules", "alone"])
def test_any_of_three_may_have_other_names(odd: int, how: str) -> None:
    three = [named("net.a", "net.b") if at == odd else named("a", "b") for at in range(3)]
    flags = {"strip_prefix": {"strip_prefix": "net."}, "rules": {"rules": parse_rules(["net.*=*"])}, "alone": {}}
    (base, *others), said = all_matched(three[0], three[1:], **flags[how])
    assert list(base) == list(others[0]) == list(others[1])
    assert len(said) == (0 if how != "alone" else 2 if odd == 0 else 1)


def test_a_rule_or_prefix_that_concerns_none_of_three_is_refused() -> None:
    three = [named("a"), named("a"), named("b")]
    with pytest.raises(UsageError, match=r"fits no tensor of .* or .* or .*"):
        all_matched(three[0], three[1:], parse_rules(["c=d"]))
    with pytest.raises(UsageError, match="--strip-prefix"):
        all_matched(three[0], three[1:], strip_prefix="m.")
