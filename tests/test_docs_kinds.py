"""The page of kinds says what the code says, and leaves none out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_naming import MODULES

from ckptswap import naming, roles
from ckptswap.naming import classify

PAGE = (Path(__file__).parent.parent / "docs/reference/kinds.md").read_text("utf-8")
ROWS = {
    kinds: example
    for kinds, _, example in (line.strip("|").split("|") for line in re.findall(r"^\| `.*", PAGE, re.M))
}
EXAMPLE = re.compile(r"`([^`]+)` ([\d×]+|\(\))")


def named(text: str) -> set[str]:
    return set(re.findall("`([^`]+)`", text))


@pytest.mark.parametrize("kinds", ROWS)
def test_examples_have_the_kinds_of_their_row(kinds: str) -> None:
    shapes = {name: tuple(map(int, re.findall(r"\d+", shape))) for name, shape in EXAMPLE.findall(ROWS[kinds])}
    told = named(kinds) if "NAME" not in kinds else named(ROWS[kinds]) - set(shapes)
    assert {kind for _, kind in classify(shapes).values()} == told


def test_no_kind_is_left_out() -> None:
    known = {f"attn.{part}.weight" for part in roles._OF_ATTENTION.values()} | {*naming._ATTENTION.values()}
    known |= {f"mlp.{part}.weight" for part in roles._OF_MLP.values()}
    known |= {f"{part}.weight" for part in naming._FUSED_EXPERTS.values()}
    known |= {kind for _, expected in MODULES for kind in expected.values()}
    of_any_module = {kind for kind in known if re.search(r"_[gv]$|_orig$|\.spectral_", kind)}
    on_page = set[str]().union(*map(named, ROWS))
    assert {kind.replace(".bias", ".weight") for kind in known - on_page - of_any_module} <= on_page
    assert {kind[-2:] for kind in of_any_module} == {
        kind[-2:] for kind in on_page if kind[-2:] in ("_g", "_v", "_u", "ig")
    }


def test_aliases_and_coarser_kinds_are_those_of_the_code() -> None:
    for alias, kinds in naming.ALIASES.items():
        assert re.search(f"`{alias}` is\\s`{kinds[0]}` and\\s`{kinds[1]}`", PAGE)
    for kind in ("attn.q.weight", "mlp.up.bias", "head.weight", "prelu.weight", "bilinear.weight"):
        assert f"`{naming.coarse(kind)}`" in PAGE.rpartition("|\n")[2]
