"""Pickles that take the machine: every command ends on each of them in one sentence, within 5 s and 500 MB."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
from stranger_limits import COMMANDS, SECONDS, Ended, tried
from stranger_pickles import (
    BEGIN,
    EMPTY_MAP,
    MERSENNE,
    NONE,
    ROOM,
    STOP,
    TRUE,
    called,
    described,
    distributed,
    frozen_nest,
    get,
    index,
    integer,
    legacy,
    listed,
    many,
    mapped,
    name_of,
    nest,
    place,
    put,
    state,
    storage,
    tensor,
    text,
    thing,
    with_metadata,
    zipped,
)

LONG = "a" * 10_000_000
DIGITS = 10**5000
MANY = 60_000
BIG = 1_000_000
EMPTY_SETS = b"\x8f" * (16 << 20)
SUBCLASS = name_of("torch._tensor._rebuild_from_type_v2")


def long_list(at: int) -> bytes:
    return listed([NONE * BIG]) + put(at) + b"0"


def nests() -> dict[str, bytes]:
    return {
        "the whole": nest(),
        "a key at the top": mapped((nest(), NONE), (text("a"), NONE)),
        "a key beside the map": mapped((text("model"), state()), (nest(), mapped((text("exp"), tensor())))),
        "a tensor's name": mapped((text("w"), tensor()), (nest(), tensor())),
        "a key among the tensors": state((nest(), NONE)),
        "a value among the tensors": state((text("n"), nest())),
        "lists": state((text("n"), nest(begin=b"(", pair=b"l"))),
        "a storage's key": state((text("v"), tensor(held=storage(key=nest())))),
        "a storage's numel": state((text("v"), tensor(held=storage(numel=nest())))),
        "a storage's place": state((text("v"), tensor(held=storage(where=nest())))),
        "a storage's id": state((text("v"), tensor(held=nest() + b"Q"))),
        "a storage's view": state((text("v"), tensor(held=storage(view=nest())))),
        "a storage": state((text("v"), tensor(held=nest()))),
        "a shape": state((text("v"), tensor(sizes=nest()))),
        "an offset": state((text("v"), tensor(offset=nest()))),
        "a dtype": state((text("v"), called("torch._utils._rebuild_tensor_v3", storage(), integer(0),
            many(integer(4)), many(integer(1)), TRUE, EMPTY_MAP, nest()))),
        "Lightning's version": mapped((text("state_dict"), state()), (text("pytorch-lightning_version"), nest())),
        "a function": state((text("v"), nest() + many() + b"R")),
        "a name": state((text("v"), nest() + nest(first=100) + b"\x93")),
        "pairs of a map": state((text("v"), called("collections.OrderedDict", listed([many(nest(), NONE)])))),
        "frozensets": state((text("v"), frozen_nest())),
        "a frozenset for a key": mapped((frozen_nest(), NONE), (text("w"), tensor())),
        "equal keys": state((text("v"), mapped((nest(), NONE), (nest(first=100), NONE)))),
    }  # fmt: skip


def numbers() -> dict[str, bytes]:
    return {
        "colliding keys": mapped(*((integer(at * MERSENNE), NONE) for at in range(MANY)), (text("w"), tensor())),
        "colliding members": state((text("v"),
            b"\x8f(" + b"".join(integer(at * MERSENNE) for at in range(MANY)) + b"\x90")),
        "colliding numbers of the memo":
            b"N" + b"".join(b"p%d\n" % (at * MERSENNE) for at in range(MANY)) + b"0" + state(),
        "colliding tuples": state((text("v"),
            mapped(*((many(integer(at * MERSENNE)), NONE) for at in range(MANY))))),
        "5,000 digits in text": state((text("n"), b"I%s\n" % (b"9" * 5000))),
        "5,000 digits of a long in text": state((text("n"), b"L%sL\n" % (b"9" * 5000))),
        "5,000 digits": state((text("n"), integer(DIGITS))),
        "5,000 digits for a key": mapped((integer(DIGITS), NONE), (text("w"), tensor())),
        "1,000 digits for a key": mapped((integer(10**1000), tensor()), (text("w"), tensor())),
        "5,000 digits in a shape": state((text("v"), tensor(shape=(DIGITS, 1)))),
        "1,000 digits in a shape": state((text("v"), tensor(shape=(10**1000,), strides=(0,)))),
        "1,000 digits in a storage": state((text("v"),
            tensor(held=storage(key=text("1"), numel=integer(10**1000))))),
        "a number of 16 MB": state((text("n"), integer(2 ** (8 * (16 << 20))))),
        "a float that is none": b"F" + b"x" * (16 << 20) + b"\n" + state(),
        "a string without an end": b"S'" + b"x" * (16 << 20) + b"\n" + state(),
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    return {
        "sets": EMPTY_SETS,
        "maps": b"}" * (16 << 20),
        "marks": b"(" * (16 << 20),
        "tuples": b"N" + b"\x85" * (16 << 20),
        "texts": b"\x8c\x02ab" * (4 << 20),
        "sets that are kept": state((text("v"), listed([EMPTY_SETS]))),
        "maps of one list": many(text("a"), NONE) + put(0) + b"0" + listed([get(0)] * BIG) + put(1) + b"0"
            + listed([called("collections.OrderedDict", get(1))] * 300),
        "shapes of one list": long_list(0) + listed([called("torch.Size", get(0))] * 300),
        "arguments without end": b"(" + b"N" * BIG + b"t" + put(0) + b"0" + listed(
            [name_of("torch._utils._rebuild_tensor_v2") + get(0) + b"R"] * 300),
        "one map under many keys": mapped(*((text(str(at)), NONE) for at in range(30_000)))
            + put(0) + b"0" + mapped(*((text(str(at)), get(0)) for at in range(30_000))),
        "one list under many names": long_list(0) + state(*((text(str(at)), get(0)) for at in range(30_000))),
        "nested lists": state((text("v"), b"]" * 400_000 + b"a" * 399_999)),
        "nested tuples": state((text("v"), b"N" + b"\x85" * 400_000)),
        "nested maps": state((text("v"), b"}N" * 200_000 + b"}" + b"s" * 200_000)),
        "nested objects": state((text("v"),
            (name_of("argparse.Namespace") + b")\x81") * 50_000 + b"N" + b"b" * 50_000)),
        "nested subclasses": state((text("v"),
            SUBCLASS + (b"(" + SUBCLASS + b"N") * 30_000 + b")" + b"t" * 30_000 + b"R")),
    }  # fmt: skip


def names() -> dict[str, bytes]:
    return {
        "a long name": state((text(LONG), tensor())),
        "a long name of no tensor": state((text(LONG), NONE)),
        "a long name of values": state((text(LONG), listed([tensor()]))),
        "a long name of a map": mapped((text(LONG), state())),
        "long keys": mapped((text(LONG), NONE), (text(LONG + "b"), NONE)),
        "a long class": state((text("v"), b"cos\n" + LONG.encode() + b"\nN\x85R")),
        "a long class on the stack": state((text("v"), text("os") + text(LONG) + b"\x93")),
        "a long storage": state((text("v"), tensor(held=storage(key=text(LONG))))),
        "a long storage, often": text(LONG) + put(0) + b"0" + state(
            *((text(str(at)), tensor(held=storage(key=get(0)))) for at in range(300))),
        "a long dtype": state((text("v"), called("torch._utils._rebuild_tensor_v3", storage(), integer(0),
            many(integer(4)), many(integer(1)), TRUE, EMPTY_MAP, text(LONG)))),
        "a long version": mapped((text("state_dict"), state()), (text("pytorch-lightning_version"), text(LONG))),
        "a long name of one that is not dense": state((text(LONG), called("torch._utils._rebuild_sparse_tensor"))),
        "a long name of one that is damaged": state((text(LONG), tensor(shape=(9, 9)))),
    }  # fmt: skip


def sizes() -> dict[str, bytes]:
    return {
        "a zero stride": state((text("v"), tensor(shape=(2**50,), strides=(0,)))),
        "zero strides": state((text("v"), tensor(shape=(2**20, 2**20), strides=(0, 0)))),
        "steps that overlap": state((text("v"), tensor(shape=(2,) * 50, strides=(0,) * 49 + (1,)))),
        "many of a zero stride": state(
            *((text(str(at)), tensor(shape=(2**22,), strides=(0,))) for at in range(500))
        ),
        "many of none": state(*((text(str(at)), tensor(shape=(0, 2**40), strides=(1, 1))) for at in range(500))),
    }


def archived(cases: dict[str, bytes], folder: Path) -> dict[str, Path]:
    return written({name: zipped(value) for name, value in cases.items()}, folder)


def written(cases: dict[str, bytes], folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.pt" for name in cases}
    for name, path in paths.items():
        path.write_bytes(cases[name])
    return paths


def faults(
    paths: dict[str, Path], folder: Path, commands: Sequence[str] = COMMANDS, heavy_ones: Collection[str] = ()
) -> list[str]:
    """What goes wrong. All commands open a file alike: what takes seconds to refuse is refused by one of them."""
    light = [path for name, path in paths.items() if name not in heavy_ones]
    heavy = [path for name, path in paths.items() if name in heavy_ones]
    ended = [*tried(light, folder, commands), *tried(heavy, folder, commands[:1])]
    assert len(ended) == len(commands) * len(light) + len(heavy)
    return [f"{each.command} {Path(each.path).name}: {each.fault}" for each in ended if each.fault]


@pytest.mark.parametrize("group", [nests, numbers, bombs, names, sizes])
def test_an_archive(group: Callable[[], dict[str, bytes]], tmp_path: Path) -> None:
    paths = archived(group(), tmp_path)
    assert faults(paths, tmp_path, heavy_ones=paths if group is bombs else ()) == []


def test_all_commands_stop_at_a_bomb(tmp_path: Path) -> None:
    paths = archived({"empty sets": EMPTY_SETS}, tmp_path)
    assert faults(paths, tmp_path, ["convert", "complete"]) == []


def legacy_files() -> dict[str, bytes]:
    return {
        "a nest for the whole": legacy(nest()),
        "a nest for the storages": legacy(state(), nest()),
        "nests among the storages": legacy(state(), listed([text("0"), nest()])),
        "a nest for a greeting": BEGIN + nest() + STOP,
        "a nest for the system":
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + BEGIN + nest() + STOP,
        "sets for a greeting": BEGIN + EMPTY_SETS + STOP,
        "sets for the storages": legacy(state(), EMPTY_SETS),
        "a nest for a view's key": legacy(mapped(
            (text("w"), tensor(held=storage(view=many(nest(), integer(0), integer(4))))))),
        "JSON in an archive": with_metadata(100_000),
        "16 MB of JSON": zipped(state(), **{"ckptswap/metadata.json": b"[" + b"[]," * (5 << 20) + b"[]]"}),
    }  # fmt: skip


def test_legacy_files_and_metadata(tmp_path: Path) -> None:
    assert faults(written(legacy_files(), tmp_path), tmp_path, heavy_ones=["sets for the storages"]) == []


ZERO_STRIDE = zipped(tensor((2**50,), (0,)))
SOUND = (index(), place())
CHUNK = thing(f"{ROOM}metadata.ChunkStorageMetadata", mapped(
    (text("offsets"), many(integer(0))), (text("sizes"), many(integer(4)))))  # fmt: skip


def sets_and_a_tensor() -> bytes:
    return zipped(listed([EMPTY_SETS[: 8 << 20]]) + b"0" + tensor((4,), (1,)))


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "sound": distributed,
    "a nest for a file": lambda folder: distributed(folder, places=[(index(), place(path=nest()))]),
    "a nest for an offset": lambda folder: distributed(folder, places=[(index(offset=nest()), place())]),
    "a nest for a name": lambda folder: distributed(folder, places=[(index(name=nest()), place())]),
    "a nest for a length": lambda folder: distributed(folder, places=[(index(), place(length=nest()))]),
    "a nest for a path": lambda folder: distributed(folder, paths=mapped((text("w"), nest()))),
    "nests in a path": lambda folder: distributed(folder, paths=mapped((text("w"), many(text("w"), nest())))),
    "a nest for a shape": lambda folder: distributed(folder, [(text("w"), described(shape=nest()))]),
    "a nest for a tensor": lambda folder: distributed(folder, [(text("w"), nest()), (nest(first=100), NONE)]),
    "colliding offsets": lambda folder: distributed(folder, places=[
        SOUND, *((index(offset=many(integer(at * MERSENNE))), place()) for at in range(5000))]),
    "one list of pieces for many": lambda folder: distributed(folder, [
        *((text(str(at)), described(chunks=listed([CHUNK] * 20_000) + put(0) if at == 0 else get(0)))
          for at in range(3000))], [(index(text(str(at))), place()) for at in range(3000)]),
    "one piece for many": lambda folder: distributed(
        folder, [(text(str(at)), described()) for at in range(3000)],
        [(index(text(str(at))), place(length=integer(16 << 20))) for at in range(3000)],
        payload=zipped(tensor((4,), (1,)), pad=bytes(16 << 20)).ljust(16 << 20, b"\0")),
    "a zero stride": lambda folder: distributed(
        folder, [(text("w"), described(shape=many(integer(2**50)), sizes=many(integer(2**50))))],
        [(index(), place(length=integer(len(ZERO_STRIDE))))], payload=ZERO_STRIDE),
    "sets for a piece": lambda folder: distributed(
        folder, places=[(index(), place(length=integer(len(sets_and_a_tensor()))))], payload=sets_and_a_tensor()),
    "sets": lambda folder: distributed(folder, paths=listed([EMPTY_SETS])),
    "getattr of a nest": lambda folder: distributed(
        folder, paths=called("builtins.getattr", nest(), nest(first=100))),
}  # fmt: skip


def test_distributed_folders(tmp_path: Path) -> None:
    paths = {name: make(tmp_path / name.replace(" ", "-")) for name, make in FOLDERS.items()}
    assert faults(paths, tmp_path) == []


def test_the_limits_are_limits(tmp_path: Path) -> None:
    """What is measured is measured: a sound file costs nothing, and one that is too much is told."""
    (tmp_path / "a.pt").write_bytes(zipped(state()))
    [shown] = tried([tmp_path / "a.pt"], tmp_path, ["show"])
    assert (shown.fault, shown.status) == ("", 0)
    assert 20 < shown.megabytes < 200
    assert "took 501 MB" in Ended("a", "show", 0, 501, 1.0, 0, "").fault
    assert f"ended with {-24}" in Ended("a", "show", 24, 0, 1.0, 0, "").fault
    assert SECONDS == 5
