from __future__ import annotations

from importlib.metadata import requires, version

from ckptswap.doctor import examine


def test_extras_are_those_of_the_packages_own_metadata() -> None:
    facts = examine()
    assert facts["versions"]["ckptswap"] == version("ckptswap")
    assert {"demo", "plot", "ray", "slurm"} <= set(facts["extras"])
    assert "dev" not in facts["extras"], "it only names other extras"
    assert facts["extras"]["demo"] == version("nilearn")
    assert len(facts["versions"]) == 2 + sum("extra ==" not in line for line in requires("ckptswap") or ())
