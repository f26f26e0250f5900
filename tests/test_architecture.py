"""The house as docs/architecture.md draws it: arrows between rooms, names, docstrings, what a command loads."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import write_checkpoint

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ckptswap"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    "torch",
    "segmentation_models_pytorch",
    "timm",
    "torchvision",
    "nilearn",
    "scipy",
    "matplotlib",
    "numba",
    "llvmlite",
    "pydantic",
}
BANNED = re.compile(r"utils|helpers|manager|(^|_)get_")
FREE = {"__main__", "version", "waiting"}
"""Not rooms: the entry point, which calls `cli`, a constant, and what every process of ours begins with."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def rooms() -> list[str]:
    """The rooms in the order in which docs/architecture.md lists them, highest first."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    house = text.split("```text\nckptswap/\n")[1].split("```")[0]
    lines = re.findall(r"^  ((?:\w+(?:\.py|/) ?)+)", house, re.MULTILINE)
    return [name for line in lines for name in re.findall(r"(\w+)(?:\.py|/)", line)]


@cache
def dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(module: str) -> str:
    """`ckptswap.sweep.plan` → `sweep`; the package itself has no room."""
    return [*module.split("."), ""][1]


@cache
def modules() -> set[str]:
    return {dotted(file) for file in FILES}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


@cache
def walked(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(file)))


@cache
def imports(file: Path) -> tuple[str, ...]:
    """Every module that a file imports at run time, inside functions too."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[str]:
    pending: list[ast.AST] = [tree(file)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (each if each in modules() else str(node.module) for each in below)
        pending.extend(ast.iter_child_nodes(node))


def test_the_walk_sees_what_is_there() -> None:
    """A walk that finds nothing would hold every arrow."""
    found = set(imports(PACKAGE / "cli/sweep.py"))
    assert {"typer", "ckptswap.cli.flags", "ckptswap.sweep.result"} <= found
    assert "ckptswap.lab.findings" in set(imports(PACKAGE / "sweeping.py"))
    assert "ckptswap.lab" not in set(imports(PACKAGE / "lazy.py"))
    assert rooms()[0] == "errors"
    assert rooms()[-2:] == ["api", "cli"]
    assert rooms().index("selection") < rooms().index("formats") < rooms().index("transplant")


def test_every_module_has_a_room() -> None:
    there = {room(dotted(file)) for file in FILES} - {""} - FREE
    assert there == set(rooms())


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_imports_run_one_way(file: Path) -> None:
    """A room uses the rooms above it; nothing imports `cli`, and only who judges claims imports `lab`."""
    here = room(dotted(file))
    if here in FREE:
        return
    order = {name: at for at, name in enumerate(rooms())}
    used = {room(module) for module in imports(file) if module.split(".")[0] == "ckptswap"} - FREE - {"", here}
    assert not {each for each in used if not here or order[each] > order[here]}
    assert "lab" not in used or here in ("cli", "runs", "sweeping")


@cache
def arrows(file: Path) -> tuple[tuple[str, bool], ...]:
    """What a file imports of the package in whatever way, for types and by string too; True inside functions."""
    return tuple(_arrows(file))


def _arrows(file: Path) -> Iterator[tuple[str, bool]]:
    known = modules() - {dotted(file)}
    functions = [node for node in definitions(file) if not isinstance(node, ast.ClassDef)]
    lazy = {id(node) for function in functions for node in ast.walk(function)}
    for node in walked(file):
        if isinstance(node, ast.ImportFrom):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [name if name in known else str(node.module) for name in below]
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            named = [str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant)]
        else:
            continue
        yield from ((name, id(node) in lazy) for name in dict.fromkeys(named) if name in known)


def test_no_file_needs_what_needs_it() -> None:
    """Not for types, not within functions, not by strings."""
    graph = {dotted(file): {target for target, _ in arrows(file)} for file in FILES}
    assert len(graph["ckptswap.cli.sweep"]) > 5
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" needs ".join(reversed(circle.args[1])))


LATE = 16
"""Imports of the package within functions, at most: start-up needs them, and no other reason is good."""


def test_imports_stand_at_the_top() -> None:
    late = [f"{dotted(file)} → {target}" for file in FILES for target, is_late in arrows(file) if is_late]
    assert len(late) <= LATE, late


def test_no_two_public_classes_share_a_name() -> None:
    """Not even in files far apart: a word means one thing."""
    where: dict[str, list[str]] = {}
    for file in FILES:
        for node in walked(file):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where.setdefault(node.name, []).append(dotted(file))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


def test_the_task_room_alone_knows_model_libraries() -> None:
    """`lab` and `sweep` use torch; smp, timm and torchvision stay in `task`."""
    libraries = {"segmentation_models_pytorch", "timm", "torchvision"}
    found = {room(dotted(file)) for file in FILES if libraries & {each.split(".")[0] for each in imports(file)}}
    assert found == {"task"}


@cache
def definitions(file: Path) -> tuple[Definition, ...]:
    return tuple(node for node in walked(file) if isinstance(node, Definition))


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_names_avoid_the_words_that_say_nothing(file: Path) -> None:
    names = [*dotted(file).split("."), *(each.name for each in definitions(file))]
    assert [
        name for name in names if BANNED.search(name) and not name.startswith("__")
    ] == []  # Python's own words


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_public_things_are_documented(file: Path) -> None:
    bare = [
        each.name
        for each in tree(file).body
        if isinstance(each, Definition) and not each.name.startswith("_") and not ast.get_docstring(each)
    ]
    assert bare == []
    assert file.name == "__main__.py" or ast.get_docstring(tree(file))


def test_functions_are_short() -> None:
    functions = [each for file in FILES for each in definitions(file) if not isinstance(each, ast.ClassDef)]
    lengths = sorted(_statement_lines(each) for each in functions)
    assert lengths[len(lengths) // 2] < 12
    assert [each.name for each in functions if _statement_lines(each) > 50] == []


def _statement_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a body, its docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


# What a command loads -------------------------------------------------------------------------------------------

LOADED = """
import json, sys
from ckptswap.cli.main import main
sys.argv = ["ckptswap", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two safetensors files, and the same tensors as torch's zip, npz and a folder of shards."""
    folder = tmp_path_factory.mktemp("light")
    for name, value in (("a", 0), ("b", 1)):
        arrays = {"c.weight": np.full((2, 1, 3, 3), value, np.float32), "c.bias": np.ones(2, np.float32)}
        checkpoint = Checkpoint.from_arrays(arrays)
        for target in (f"{name}.safetensors", f"{name}.pt", f"{name}.npz"):
            write_checkpoint(checkpoint, folder / target)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "sweep --help",
        "train --help",
        "show a.safetensors --stats --format json",
        "show a.pt --stats",
        "show a.npz",
        "diff a.safetensors b.safetensors",
        "diff a.pt b.safetensors --format md",
        "diff a.safetensors b.safetensors a.safetensors",
        "transplant --from a.safetensors --to b.safetensors --kind conv.bias -o out.safetensors",
        "transplant --from a.pt --to b.safetensors --alpha 0.5 -o mixed.safetensors",
        "convert a.safetensors copy.pt",
        "verify a.safetensors",
    ],
)
def test_light_commands_load_no_model_library(files: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(command.split())], cwd=files, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert "numpy" in loaded or "show" not in command
    assert HEAVY & set(loaded) == set()
    slow = {"email"} | ({"numpy"} if command == "--help" else set())  # importlib.metadata loads email
    assert slow & set(loaded) == set()


def test_a_report_loads_no_model_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(["report", "nothing", "--claims"])], cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert (code, HEAVY & set(loaded)) == (2, set())


# The README -----------------------------------------------------------------------------------------------------


def test_every_command_is_in_the_readme() -> None:
    from ckptswap.cli.main import SUMMARIES

    text = (ROOT / "README.md").read_text("utf-8")
    assert len(SUMMARIES) >= 11
    assert [name for name in SUMMARIES if not re.search(rf"ckptswap {name}\b", text)] == []
