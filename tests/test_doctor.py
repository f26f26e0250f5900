from __future__ import annotations

from importlib.metadata import EntryPoint, requires, version

import pytest

from ckptswap import doctor
from ckptswap.doctor import examine


def test_extras_are_those_of_the_packages_own_metadata() -> None:
    facts = examine()
    assert facts["versions"]["ckptswap"] == version("ckptswap")
    assert {"demo", "plot", "ray", "slurm"} <= set(facts["extras"])
    assert "dev" not in facts["extras"], "it only names other extras"
    assert facts["extras"]["demo"] == version("nilearn")
    assert len(facts["versions"]) == 2 + sum("extra ==" not in line for line in requires("ckptswap") or ())


def test_a_name_of_ours_in_another_package_is_told_not_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, "theirs:SOURCE", "ckptswap.models") for name in ("smp", "theirs")}
    monkeypatch.setattr(doctor, "plugins", lambda group: points if group == "models" else {})
    facts = examine()["plugins"]
    assert facts == {"models smp": "theirs:SOURCE (not used: we have one)", "models theirs": "theirs:SOURCE"}
