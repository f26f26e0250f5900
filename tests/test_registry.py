"""Names of what a sweep is made of; what other packages add is in tests/plugin/test_plugin.py."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import get_args

import pytest

from ckptswap import registry
from ckptswap.errors import CkptswapError, DependencyError
from ckptswap.registry import Group, Source, every, extra_for, find, is_safe, names, source_of

GROUPS = get_args(Group)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in names(group)])
def test_every_line_of_the_table_leads_somewhere(group: Group, name: str) -> None:
    assert find(group, name) is not None


@pytest.mark.parametrize("group", GROUPS)
def test_near_names_are_told(group: Group) -> None:
    for name in names(group):
        with pytest.raises(
            CkptswapError, match=f"there is no {group.removesuffix('s')} '{name}x': did you mean '{name}'"
        ):
            find(group, f"{name}x")


def test_declarations_load_no_torch() -> None:
    """`report` and a look at a configuration file ask what a name stands for, and must not take seconds."""
    code = """
import json, sys
from ckptswap.registry import every
for group in ("models", "data", "metrics", "formats"):
    list(every(group))
print(json.dumps(sorted({"torch", "timm", "segmentation_models_pytorch"} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("group", "spec", "safe"),
    [
        ("models", "smp:Unet", True),
        ("models", "smp", False),
        ("models", "net.py:build", False),
        ("models", "os:system", False),
        ("data", "lab:mni", True),
        ("data", "scans", False),
        ("metrics", "iou", True),
        ("metrics", "iou:pooled", True),
        ("metrics", "score.py:iou", False),
    ],
)
def test_what_a_strangers_file_may_name(group: Group, spec: str, safe: bool) -> None:
    assert is_safe(group, spec) == safe


def entry(monkeypatch: pytest.MonkeyPatch, group: Group, **targets: str) -> None:
    points = {name: EntryPoint(name, target, f"ckptswap.{group}") for name, target in targets.items()}
    real = registry.plugins
    monkeypatch.setattr(registry, "plugins", lambda asked: points if asked == group else real(asked))


def test_ours_wins_over_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entry(monkeypatch, "models", smp="json:loads", other="json:loads")
    assert isinstance(find("models", "smp"), Source)
    assert find("models", "other") is json.loads
    assert names("models").count("smp") == 1
    assert names("models")[-1] == "other"
    assert len(list(every("models"))) == len(names("models"))


def test_a_package_that_is_broken_or_lacks_something_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry(monkeypatch, "metrics", gone="nowhere_to_be_found:SOURCE", bare="json:SOURCE")
    with pytest.raises(DependencyError, match="the metric 'gone' needs nowhere_to_be_found: install"):
        find("metrics", "gone")
    with pytest.raises(DependencyError, match=r"the metric 'bare' of json is broken .*SOURCE"):
        source_of("metrics", "bare")


def test_a_package_whose_module_fails_or_holds_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(target: str) -> object:
        if target == "fails:SOURCE":
            raise ValueError("no such thing")
        return json.loads

    entry(monkeypatch, "models", fails="fails:SOURCE", other="json:loads")
    monkeypatch.setattr(registry, "_loaded", failing)
    with pytest.raises(DependencyError, match=r"'fails' of fails is broken \(ValueError: no such thing\)"):
        source_of("models", "fails:x")
    with pytest.raises(DependencyError, match="the model 'other' is a function"):
        source_of("models", "other:x")


def test_a_missing_extra_is_named_with_its_pip_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(target: str) -> None:
        raise ModuleNotFoundError("No module named 'submitit'", name="submitit")

    monkeypatch.setattr(registry, "_loaded", missing)
    with pytest.raises(DependencyError, match=r"the metric 'iou' needs submitit: pip install 'ckptswap\[slurm\]'"):
        find("metrics", "iou")
    assert extra_for("numpy") is None
    assert extra_for("numpy", "no-such-package") is None
