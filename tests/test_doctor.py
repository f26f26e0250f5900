from __future__ import annotations

from importlib.metadata import EntryPoint, requires, version
from pathlib import Path

import pytest

from ckptswap import doctor
from ckptswap.cli.doctor import _lines
from ckptswap.doctor import BRINGS, examine


def test_extras_are_those_of_the_packages_own_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_fault", lambda package: None)  # importing them all takes seconds
    facts = examine()
    assert facts["versions"]["ckptswap"] == version("ckptswap")
    assert {"demo", "plot", "ray", "slurm"} <= set(facts["extras"])
    assert "dev" not in facts["extras"], "it only names other extras"
    assert facts["extras"]["demo"]["packages"] == {"nilearn": version("nilearn")}
    assert set(facts["extras"]["hf"]["packages"]) == {"peft", "transformers"}
    assert facts["extras"].keys() <= BRINGS.keys(), "an extra without a word of what it brings"
    assert len(facts["versions"]) == 2 + sum("extra ==" not in line for line in requires("ckptswap") or ())


def test_a_name_of_ours_in_another_package_is_told_not_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, "theirs:SOURCE", "ckptswap.models") for name in ("smp", "theirs")}
    monkeypatch.setattr(doctor, "_fault", lambda package: None)
    monkeypatch.setattr(doctor, "plugins", lambda group: points if group == "models" else {})
    facts = examine()["plugins"]
    assert facts == {"models smp": "theirs:SOURCE (not used: we have one)", "models theirs": "theirs:SOURCE"}


def test_an_extra_works_only_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sound.py").write_text("print('loud')\n")
    (tmp_path / "unsound.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    wanted = [
        "sound; extra == 'plot'",
        "unsound>=2; extra == 'ray'",
        "sound; extra == 'hf'",
        "gone; extra == 'hf'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "gone" else "1.0")
    extras = examine()["extras"]
    assert {name: extra["state"] for name, extra in extras.items()} == {
        "hf": "missing", "plot": "works", "ray": "broken"}  # fmt: skip
    assert extras["hf"]["packages"] == {"sound": "1.0", "gone": None}
    assert extras["ray"]["fault"] == "ModuleNotFoundError: No module named 'no_such_library'"
    lines = _lines({"extras": extras})
    assert "pip install 'ckptswap[hf]'" in lines
    assert "broken, unsound 1.0 (ModuleNotFoundError: No module named 'no_such_library'): --executor ray" in lines
    assert "pip" not in next(line for line in lines.splitlines() if "plot" in line)
