"""Patterns that a person types: fnmatch's and re's own answers, in bounded time, or a sentence."""

from __future__ import annotations

import re
from fnmatch import translate

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ckptswap import patterns
from ckptswap.errors import UsageError
from ckptswap.patterns import Expression, begins_path, glob, starred

LETTERS = st.text("ab.", max_size=9)
GLOBS = st.text("ab*?.[]!", max_size=8)


def by_regex(pattern: str) -> re.Pattern[str]:
    """fnmatch with a greedy group for each star: right, and without bound in time."""
    pieces = (translate(each).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
              for each in pattern.split("*"))  # fmt: skip
    return re.compile("(.*)".join(pieces), re.DOTALL)


@given(pattern=GLOBS, name=LETTERS)
def test_stars_take_what_a_greedy_expression_takes(pattern: str, name: str) -> None:
    try:
        found = by_regex(pattern).fullmatch(name)
    except re.error:
        assume(False)
    assert starred(pattern)(name) == (None if found is None else found.groups())


@given(pattern=st.lists(st.sampled_from(["**", "*", "a", "b"]), max_size=5), path=st.lists(st.sampled_from("ab")))
def test_a_path_is_taken_as_by_trying_all(pattern: list[str], path: list[str]) -> None:
    def tried(pattern: list[str], path: list[str]) -> bool:
        if not pattern:
            return True
        if pattern[0] == "**":
            return any(tried(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
        return bool(path) and pattern[0] in ("*", path[0]) and tried(pattern[1:], path[1:])

    tests = [None if each == "**" else glob(each) for each in pattern]
    assert begins_path(tests, path) == tried(pattern, path)


ORDINARY = {
    r"block(\d+)\.(.*)": "block3.norm.bias",
    r"(s\d+)_": "s01_3",
    r"(subj\d+|ctrl\d+)_": "ctrl7_x",
    r"(.*)\.(.*)\.(.*)": "encoder.layer1.0.conv1.weight",
    r"(?:\w+\.)*(\w+)\.weight": "encoder.layer1.0.conv1.weight",
    r"(\w+)\.(\w+)\.(\w+)\.(\w+)\.(\w+)\.(\w+)\.(.*)": "a.b.c.d.e.f.self_attention.query.weight",
    r"(?:[^_]+_){2}(\d+)": "sub_07_12",
    r"(?i)(SUB-[0-9]+).*": "sub-03_T1w",
    r"(?P<a>x+?)(y?)(?=z)z": "xxz",
    r"(\w+)_\1": "ab_ab",
    r"(?:foo|bar)*x": "foobarx",
    r"a++b": "aab",
}


@pytest.mark.parametrize("pattern", ORDINARY)
def test_ordinary_expressions_answer_as_re_does(pattern: str) -> None:
    name = ORDINARY[pattern]
    for ours, theirs in (("fullmatch", re.fullmatch), ("search", re.search)):
        found, wanted = getattr(Expression(pattern, "--map"), ours)(name), theirs(pattern, name)
        assert (found is None) == (wanted is None)
        assert found is None or found.groups() == wanted.groups()


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(a|aa)+b", "(a|a?)+b", "(a*)*b", "(.*,)*x,", "((a?b?)*c?)*d", "(?:a?){30}a{30}"],
)
def test_what_could_take_for_ever_is_refused_when_it_is_read(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"--group .* could take for ever: repeat nothing"):
        Expression(pattern, "--group")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("(.*)a(.*)a(.*)a(.*)a(.*)a(.*)x", "a" * 200),
        ("a*a*a*a*a*a*a*a*a*b", "a" * 200),
        ("(?:a{1,9}){1,9}b", "a" * 80),
        (r"(.*)\.(.*)\.(.*)x", "." * 5000),
        (r"(?i)(a+)(a+)(a+)b", "a" * 400),
        ("(?=(.*)(.*)(.*)z)x", "a" * 500),
    ],
)
def test_what_would_take_too_long_on_a_name_is_a_sentence(pattern: str, name: str) -> None:
    with pytest.raises(UsageError, match="would take too long on"):
        Expression(pattern, "--map").fullmatch(name)
    with pytest.raises(UsageError, match="would take too long on"):
        Expression(pattern, "--map").search(name)


def test_over_all_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expression = Expression("(.*)a", "--map")
    assert expression.fullmatch("aa") is not None
    monkeypatch.setattr(patterns, "SECONDS_MOST", 0.0)
    with pytest.raises(UsageError, match="would take too long"):
        expression.fullmatch("aa")


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?P<1>a)", "(" * 5000 + ")" * 5000, "[z-a]"])
def test_what_is_no_expression_is_a_sentence(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a regular expression"):
        Expression(pattern, "--group")
