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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
GROUPS = ("models", "data", "metrics", "formats", "executors")
Command = Callable[..., subprocess.CompletedProcess[str]]
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
        assert _run(folder, installed, "convert", f"{name}.safetensors", f"{name}.plug").returncode == 0
        (folder / f"{name}.safetensors").unlink()
    images = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    done = _run(folder, installed, *SWEEP, *TASK, *HOW, "--format", "json")
    assert done.returncode == 0, done.stderr
    (folder / "swept.json").write_text(done.stdout)
    return folder


@pytest.fixture
def command(made: Path, installed: Path, tmp_path: Path) -> Command:
    """Runs a command, with the plugin installed, in a copy of what was made, which is `cwd`."""
    folder = Path(shutil.copytree(made, tmp_path / "run"))

    def run(*words: str, site: Path = installed, **env: str) -> subprocess.CompletedProcess[str]:
        return _run(folder, site, *words, **env)

    return run


def _run(folder: Path, site: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptswap", *words]
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200", **env}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


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
    reported = command("report", "run", "--format", "json")
    assert json.loads(reported.stdout)["rows"] == swept["rows"]
    chosen = command("select", "run", "--format", "json")
    assert chosen.returncode == 0, chosen.stderr
    assert "plug" in command("show", "b.plug", "--format", "json").stdout


def test_the_same_by_what_is_ours(made: Path, command: Command) -> None:
    """The plugin's executor and format change no bit."""
    assert command("convert", "a.plug", "a.npz").returncode == 0
    assert command("convert", "b.plug", "b.npz").returncode == 0
    here = ("sweep", "--from", "a.npz", "--to", "b.npz", *TASK, "--target", "input", "--run", "here")
    done = command(*here, "--tolerance", "0.01", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == json.loads((made / "swept.json").read_text())["rows"]


def test_doctor_lists_what_is_installed(command: Command) -> None:
    facts = json.loads(command("doctor", "--format", "json").stdout)
    assert facts["plugins"] == {f"{group} plugin": "ckptswap-plugin 1.0" for group in GROUPS}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--model", "plugni:chain"),
        ("--data", "plugni:images.npy"),
        ("--metric", "plugni"),
        ("--executor", "plugni"),
    ],
)
def test_a_misspelt_name_is_told_by_the_plugins(command: Command, flag: str, value: str) -> None:
    words = [*SWEEP, *TASK, *HOW, "--run", "other"]
    words[words.index(flag) + 1] = value
    done = command(*words)
    assert done.returncode == 2
    assert "did you mean 'plugin'?" in done.stderr


def test_another_version_of_the_plugin_is_another_run(command: Command, installed: Path, tmp_path: Path) -> None:
    assert command(*SWEEP, *TASK, *HOW).returncode == 0
    newer = Path(shutil.copytree(installed, tmp_path / "newer"))
    (about,) = newer.glob("*.dist-info")
    text = (about / "METADATA").read_text()
    (about / "METADATA").write_text(text.replace("Version: 1.0", "Version: 1.1"))
    done = command(*SWEEP, *TASK, *HOW, site=newer)
    assert done.returncode == 2
    assert re.search(r"was made under other conditions: versions .*ckptswap-plugin.*1\.0.*1\.1", done.stderr), (
        done.stderr
    )
    assert "exactness" not in done.stderr


def test_a_strangers_folder_names_only_what_the_plugin_says_is_safe(command: Command, tmp_path: Path) -> None:
    """Its data opens the file that a spec names; its model and its metric do nothing that a spec could ask for."""
    done = command("select", "run", XDG_STATE_HOME=str(tmp_path / "stranger"))
    assert done.returncode == 2
    assert "--data plugin:images.npy" in done.stderr
    assert "--model" not in done.stderr
    assert "--metric" not in done.stderr
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
    done = command("select", "run", *again, "--model", "plugin:chain", XDG_STATE_HOME=str(tmp_path / "stranger"))
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_may_name_the_plugins_model(made: Path, command: Command) -> None:
    metadata = {"ckptswap.model": "plugin:chain", "ckptswap.model_args": "{}"}
    save_file(_chain(1).state_dict(), made / "named.safetensors", metadata)
    words = ("evaluate", str(made / "named.safetensors"), *TASK[2:], "--target", "input", "--format", "json")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 20


def test_without_the_plugin_its_scores_are_not_added_up_in_another_way(command: Command, tmp_path: Path) -> None:
    done = command("report", "run", site=tmp_path)
    assert done.returncode == 2
    assert "there is no metric 'plugin'" in done.stderr
