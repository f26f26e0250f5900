"""A package beside ours adds one of each, by one file and one line, and every command takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
GROUPS = ("models", "data", "metrics", "formats", "executors")
Command = Callable[..., tuple[list[int], list[str]]]
SWEEP = ("sweep", "--from", "a.plug", "--to", "b.plug")
TASK = (
    "--model",
    "plugin:chain",
    "--data",
    "plugin:images.npy",
    "--data-args",
    "together=2",
    "--metric",
    "plugin",
)
HOW = ("--target", "input", "--executor", "plugin", "--run", "run", "--tolerance", "0.01")
JSON = ("--format", "json")
COMMANDS = """
import json, sys
from ckptswap.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["ckptswap", *words]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print(f"{code} is the code", file=sys.stderr)
"""
"""Several commands in one process, since each start takes seconds."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as an installer lays it out, built by its own backend; no network is needed."""
    place = tmp_path_factory.mktemp("plugin")
    shutil.copytree(HERE, place / "source", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as backend; backend.build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=place / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Path:
    """Two checkpoints of the plugin's format, its data, and a sweep of them by all that it has."""
    folder = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(("a", "b")):
        save_file(_chain(seed).state_dict(), folder / f"{name}.safetensors")
    images = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    convert = [("convert", f"{name}.safetensors", f"{name}.plug") for name in "ab"]
    codes, errors = _run(folder, installed, *convert, (*SWEEP, *TASK, *HOW, *JSON, "-o", "swept.json"))
    assert codes == [0, 0, 0], errors
    return folder


@pytest.fixture
def command(made: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs commands, with the plugin installed, in a copy of what was made, which is the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "run"))

    def run(*lines: Sequence[str], site: Path = installed, **env: str) -> tuple[list[int], list[str]]:
        return _run(Path(), site, *lines, **env)

    return run


def _run(folder: Path, site: Path, *lines: Sequence[str], **env: str) -> tuple[list[int], list[str]]:
    """The code of each command, and what it wrote to stderr."""
    command = [sys.executable, "-c", COMMANDS, json.dumps(lines)]
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200", **env}
    done = programs.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    parts = re.findall(r"(.*?)(\d+) is the code\n", done.stderr, re.DOTALL)
    assert len(parts) == len(lines), done.stderr
    return [int(code) for _, code in parts], [text for text, _ in parts]


def _chain(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)]
    for norm in layers[1::2]:
        nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers).eval()


def test_adding_one_is_one_file_and_one_line() -> None:
    lines = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    files = {path.stem for path in (HERE / "ckptswap_plugin").glob("*.py")} - {"__init__"}
    touched = {group: lines[f"ckptswap.{group}"] for group in GROUPS}
    assert [len(entries) for entries in touched.values()] == [1] * len(GROUPS)
    assert {target.split(":")[0] for entries in touched.values() for target in entries.values()} == {
        f"ckptswap_plugin.{name}" for name in files
    }
    assert len(files) == len(GROUPS)


def test_a_sweep_by_all_that_the_plugin_has(made: Path, command: Command) -> None:
    swept = json.loads((made / "swept.json").read_text())
    images = torch.from_numpy(np.load(made / "images.npy"))
    with torch.inference_mode():
        errors = (_chain(1)(images).double() - images.double()).square().flatten(1).mean(1)
    assert swept["metric"] == "plugin"
    assert swept["baseline"] == pytest.approx(errors.mean().sqrt().item(), rel=1e-12)
    assert swept["samples"] == 20
    assert {row["status"] for row in swept["rows"]} >= {"measured"}
    commands = {"report": "run", "select": "run", "show": "b.plug"}
    codes, errors = command(*((name, what, *JSON, "-o", f"{name}.json") for name, what in commands.items()))
    assert codes == [0, 0, 0], errors
    report, _, show = (json.loads(Path(f"{name}.json").read_text()) for name in commands)
    assert report["rows"] == swept["rows"]
    assert show["format"] == "plug"


def test_the_same_by_what_is_ours(made: Path, command: Command) -> None:
    """The plugin's executor and format change no bit."""
    here = ("sweep", "--from", "a.npz", "--to", "b.npz", *TASK, "--target", "input", "--run", "here")
    sweep = (*here, "--tolerance", "0.01", *JSON, "-o", "here.json")
    codes, errors = command(("convert", "a.plug", "a.npz"), ("convert", "b.plug", "b.npz"), sweep)
    assert codes == [0, 0, 0], errors
    ours, theirs = (json.loads(file.read_text())["rows"] for file in (Path("here.json"), made / "swept.json"))
    assert ours == theirs


def test_doctor_lists_what_is_installed(command: Command) -> None:
    command(("doctor", *JSON, "-o", "facts.json"))
    facts = json.loads(Path("facts.json").read_text())
    assert facts["plugins"] == {f"{group} plugin": "ckptswap-plugin 1.0" for group in GROUPS}


def test_a_misspelt_name_is_told_by_the_plugins(command: Command) -> None:
    wrong = {
        "--model": "plugni:chain",
        "--data": "plugni:images.npy",
        "--metric": "plugni",
        "--executor": "plugni",
    }
    lines = []
    for flag, value in wrong.items():
        words = [*SWEEP, *TASK, *HOW, "--run", "other"]
        words[words.index(flag) + 1] = value
        lines.append(words)
    codes, errors = command(*lines)
    assert codes == [2, 2, 2, 2]
    assert all("did you mean 'plugin'?" in error for error in errors), errors


def test_another_version_of_the_plugin_is_another_run(command: Command, installed: Path, tmp_path: Path) -> None:
    newer = Path(shutil.copytree(installed, tmp_path / "newer"))
    (about,) = newer.glob("*.dist-info")
    text = (about / "METADATA").read_text()
    (about / "METADATA").write_text(text.replace("Version: 1.0", "Version: 1.1"))
    codes, [error] = command((*SWEEP, *TASK, *HOW), site=newer)
    assert codes == [2]
    assert re.search(r"was made under other conditions: versions .*ckptswap-plugin.*1\.0.*1\.1", error), error
    assert "exactness" not in error


def test_a_strangers_folder_names_only_what_the_plugin_says_is_safe(command: Command, tmp_path: Path) -> None:
    """Its data opens the file that a spec names; its model and its metric do nothing that a spec could ask for."""
    again = (
        "--from",
        "a.plug",
        "--recipient",
        "b.plug",
        "--data",
        "plugin:images.npy",
        "--data-args",
        "together=2",
    )
    named = ("select", "run", *again, "--model", "plugin:chain")
    codes, errors = command(("select", "run"), named, XDG_STATE_HOME=str(tmp_path / "stranger"))
    assert codes == [2, 0], errors
    assert "--data plugin:images.npy" in errors[0]
    assert "--model" not in errors[0]
    assert "--metric" not in errors[0]


def test_a_checkpoint_may_name_the_plugins_model(made: Path, command: Command) -> None:
    metadata = {"ckptswap.model": "plugin:chain", "ckptswap.model_args": "{}"}
    save_file(_chain(1).state_dict(), made / "named.safetensors", metadata)
    file = str(made / "named.safetensors")
    codes, errors = command(("evaluate", file, *TASK[2:], "--target", "input", *JSON, "-o", "evaluated.json"))
    assert codes == [0], errors
    assert json.loads(Path("evaluated.json").read_text())["samples"] == 20


def test_without_the_plugin_its_scores_are_not_added_up_in_another_way(command: Command, tmp_path: Path) -> None:
    codes, [error] = command(("report", "run"), site=tmp_path)
    assert codes == [2]
    assert "there is no metric 'plugin'" in error
