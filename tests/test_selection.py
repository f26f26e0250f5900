"""Selections: which tensors each flag takes, and what is said when none is left."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import SelectionError
from ckptswap.selection import Part, Selection

SHAPES = {
    "encoder.3.conv1.weight": (2, 1, 3, 3), "encoder.3.conv1.bias": (2,), "encoder.30.conv1.weight": (2, 1, 3, 3),
    "encoder.3.bn.weight": (2,), "encoder.3.bn.bias": (2,), "encoder.3.bn.running_mean": (2,),
    "encoder.3.bn.running_var": (2,), "encoder.3.bn.num_batches_tracked": (),
    **{f"decoder.{at}.conv1.weight": (2, 1, 3, 3) for at in (1, 2, 10, 15, 16)},
    "head.weight": (2, 2), "scale": (1,), "a,b.weight": (3, 3), "x[1]*.w": (1,), "new\nline": (1,), "=eq": (1,),
    "": (1,), "decoder.²": (1,),
}  # fmt: skip


@cache
def checkpoint() -> Checkpoint:
    return Checkpoint.from_arrays(
        {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, path="c.pt"
    )


def picked(**flags: list[str]) -> list[str]:
    return [entry.name for entry in Selection.parse(**flags).pick(checkpoint())]


CONV1 = [f"decoder.{at}.conv1.weight" for at in (1, 2, 10, 15, 16)]
BN3 = [f"encoder.3.bn.{role}" for role in ("bias", "num_batches_tracked", "running_mean", "running_var", "weight")]
CONV3 = ["encoder.3.conv1.bias", "encoder.3.conv1.weight"]
ROOT = ["", "=eq", "new\nline", "scale"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"only": ["encoder.3.*"]}, BN3 + CONV3),
        ({"only": ["bn.running_*"]}, BN3[2:4]),
        ({"only": ["*.running_mean", "scale"]}, [BN3[2], "scale"]),
        ({"only": ["*.running_mean,scale"]}, [BN3[2], "scale"]),
        ({"only": ["conv.bias"]}, CONV3[:1]),
        ({"only": ["new*"]}, ["new\nline"]),
        ({"only": ["=a,b.weight"]}, ["a,b.weight"]),
        ({"only": ["=x[1]*.w"]}, ["x[1]*.w"]),
        ({"only": ["scale,==eq"]}, ["=eq", "scale"]),
        ({"only": ["="]}, [""]),
        ({"only": ["encoder.?.bn.bias", "encoder.[3].bn.weight"]}, [BN3[0], BN3[4]]),
        ({"layers": ["encoder.3"]}, BN3 + CONV3),
        ({"layers": ["encoder.3.bn"]}, BN3),
        ({"layers": ["encoder.*.conv1"]}, [*CONV3, "encoder.30.conv1.weight"]),
        ({"layers": ["encoder.2:3.bn"]}, BN3),
        ({"layers": ["decoder.10:15"]}, CONV1[2:4]),
        ({"layers": ["decoder.010:15"]}, CONV1[2:4]),
        ({"layers": ["decoder.1:1"]}, CONV1[:1]),
        ({"layers": ["**.conv1"]}, [*CONV1, *CONV3, "encoder.30.conv1.weight"]),
        ({"layers": ["**.bn.**"]}, BN3),
        ({"layers": ["="]}, ROOT),
        ({"layers": ["=encoder.3"]}, BN3 + CONV3),
        ({"layers": ["=x[1]*"]}, ["x[1]*.w"]),
        ({"layers": ["head", "decoder.2"]}, ["decoder.2.conv1.weight", "head.weight"]),
        ({"kind": ["bn.stats"]}, BN3[2:4]),
        ({"kind": ["bn.affine"]}, [BN3[0], BN3[4]]),
        ({"kind": ["bn.*"]}, BN3),
        ({"kind": ["conv.bias,linear.weight"]}, ["a,b.weight", "encoder.3.conv1.bias", "head.weight"]),
        ({"kind": ["=bn.weight"]}, [BN3[4]]),
        ({"kind": ["bn.*"], "exclude": ["bn.running_*", "*.bias"]}, [BN3[1], BN3[4]]),
        ({"layers": ["encoder"], "kind": ["conv.*"], "exclude": ["*.30.*"]}, CONV3),
        ({"layers": ["encoder.3"], "only": ["*.weight"], "kind": ["bn.*"]}, [BN3[4]]),
    ],
)  # fmt: skip
def test_each_flag_takes_what_it_says(flags: dict[str, list[str]], expected: list[str]) -> None:
    assert picked(**flags) == expected


def test_nothing_asked_for_is_everything() -> None:
    assert {entry.name for entry in Selection().pick(checkpoint())} == set(SHAPES)
    assert not Selection()
    assert Selection.parse(layers=["*"])


@pytest.mark.parametrize("pattern", ["*", "?*", "[!x]*"])
def test_one_segment_is_not_the_root(pattern: str) -> None:
    assert not set(picked(layers=[pattern])) & set(ROOT)


def test_any_segments_are_the_root_too() -> None:
    assert set(picked(layers=["**"])) == set(SHAPES)


def test_case_matters() -> None:
    with pytest.raises(SelectionError):
        picked(only=["SCALE"])


@pytest.mark.parametrize(
    "asked",
    [{"only": ["lm_head.weight"]}, {"kind": ["head.weight"]}, {"layers": ["lm_head"]}, {"only": ["*lm_head*"]}],
)
def test_a_head_that_is_tied_to_the_embedding_is_named_by_that(asked: dict[str, list[str]]) -> None:
    shapes = {"model.embed_types.weight": (2, 4), "model.embed_tokens.weight": (9, 4), "model.norm.weight": (4,)}

    def of(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
        return Checkpoint.from_arrays({name: np.zeros(shape) for name, shape in shapes.items()}, path="c.pt")

    with pytest.raises(
        SelectionError, match=r"tied.* is in the file as that: --only model\.embed_tokens\.weight$"
    ):
        Selection.parse(**asked).pick(of(shapes))
    with pytest.raises(SelectionError, match=r"it has|did you mean"):
        Selection.parse(layers=["lm_head"]).pick(of(shapes | {"score.weight": (9, 4)}))


def test_what_is_no_entry_is_in_no_selection() -> None:
    assert "scale" not in Selection()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"only": ["encoder.3.conv1.wieght"]}, "did you mean 'encoder.3.conv1.weight'"),
        ({"layers": ["encodr.3"]}, "did you mean 'encoder.3'"),
        ({"kind": ["conv"]}, r"'conv\.\*'"),
        ({"kind": ["bn.stat"]}, "'bn.stats'"),
        ({"kind": ["zzzzzz"]}, "it has 'bn.*', .* and 17 more"),
        ({"kind": ["linear.weight"], "layers": ["encoder"]}, "no tensor matches them all"),
        ({"exclude": ["*"]}, "no tensor matches them all"),
        ({"only": ["a,,b"]}, "empty pattern in 'a,,b'"),
        ({"only": [""]}, "empty pattern"),
        ({"layers": [" "]}, "empty pattern"),
        ({"layers": ["encoder..conv1"]}, "empty segment"),
        ({"layers": ["encoder.5:3"]}, "runs backwards: write '3:5'"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_refused_with_what_is_near(flags: dict[str, list[str]], said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        picked(**flags)


def test_each_value_that_matches_nothing_is_named_whichever_checkpoint_is_looked_at() -> None:
    chosen = Selection.parse(only=["*.bias", "bn.*", "=gone"], exclude=["nothing"], layers=["encoder", "decodr"])
    first, second = (Checkpoint.from_arrays({name: np.zeros(2)}) for name in ("encoder.bias", "decoder.scale"))
    found = chosen.unmatched(first, second)
    assert [(each.flag, each.value) for each in found] == [
        ("only", "bn.*"), ("only", "=gone"), ("exclude", "nothing"), ("layers", "decodr"),
    ]  # fmt: skip
    assert found[-1].hint.startswith("did you mean 'decoder'")
    assert ("only", "*.bias") in [(each.flag, each.value) for each in chosen.unmatched(second)]
    assert Selection().unmatched(first) == []


def test_endless_numbers_are_names() -> None:
    names = ["l." + "9" * 5000 + ".w", "l.3.w"]
    endless = Checkpoint.from_arrays({name: np.zeros(1) for name in names})
    assert [entry.name for entry in Selection.parse(layers=["l.1:5"]).pick(endless)] == ["l.3.w"]
    assert [entry.name for entry in Selection().pick(endless)] == ["l.3.w", names[0]]


def test_parts_by_layer_and_kind() -> None:
    chosen = Selection.parse(layers=["encoder.3"], exclude=["*.num_batches_tracked"])
    assert chosen.split(checkpoint(), ("layer", "kind"))[0] == Part("encoder.3.bn", "bn.bias", (BN3[0],))
    assert [(part.layer, part.kind, len(part.names)) for part in chosen.split(checkpoint(), ("layer",))] == [
        ("encoder.3.bn", None, 4), ("encoder.3.conv1", None, 2),
    ]  # fmt: skip
    by_kind = Selection.parse(kind=["conv.*"]).split(checkpoint(), ("kind",))
    assert [(part.layer, part.kind) for part in by_kind] == [(None, "conv.weight"), (None, "conv.bias")]
    assert by_kind[0].names == (*CONV1, CONV3[1], "encoder.30.conv1.weight")


def test_parts_by_tensor_say_where_each_lies() -> None:
    parts = Selection.parse(kind=["bn.stats"]).split(checkpoint(), ("tensor",))
    assert parts == [
        Part("encoder.3.bn", kind, (f"encoder.3.{kind}",)) for kind in ("bn.running_mean", "bn.running_var")
    ]


@pytest.mark.parametrize("by", [(), ("name",), ("layer", "dtype")])
def test_a_split_by_what_there_is_not(by: tuple[str, ...]) -> None:
    with pytest.raises(SelectionError, match="use layer, kind, tensor"):
        Selection().split(checkpoint(), by)


def test_flags_print_quoted_for_a_shell() -> None:
    chosen = Selection.parse(only=["=it's", "bn.running_*"], layers=["encoder.3"])
    assert str(chosen) == """--only '=it'"'"'s' --only 'bn.running_*' --layers encoder.3"""


def test_equal_selections_are_equal() -> None:
    assert Selection.parse(only=["a,b"]) == Selection.parse(only=["a", "b"])
    assert hash(Selection.parse(kind=["a"])) == hash(Selection(kind=("a",)))


@pytest.mark.parametrize("flag", ["kind", "only"])
def test_a_family_that_has_another_name_now_is_found(flag: str) -> None:
    names = [f"layers.{at}.self_attn.{part}_proj.weight" for at in (0, 1) for part in "qkvo"]
    attention = Checkpoint.from_arrays(dict.fromkeys(names, np.zeros((3, 3), np.float32)))
    with pytest.raises(SelectionError, match=r"did you mean 'attn\.\*'\?"):
        Selection.parse(**{flag: ["attention.*"]}).pick(attention)
