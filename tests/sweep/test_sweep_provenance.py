"""What a run remembers of its making."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sweeping import plan_json, prepare, ran, run_plan, write_plan_json

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.sweep.provenance import FROM_PYTHON, load_provenance
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.task import TaskSpec

Save = Callable[..., Checkpoint]


def test_a_run_tells_command_hashes_seeds_and_times(save: Save, skip: TaskSpec, tmp_path: Path) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    found = prepare(donor, recipient, skip, run_dir=tmp_path / "run")
    ran(found, command="ckptswap sweep --from 'a b'")
    origin = load_provenance(tmp_path / "run")
    facts = origin.facts
    assert facts["command"] == "ckptswap sweep --from 'a b'"
    assert facts["recipient's SHA-256"] == hashlib.sha256(Path(recipient.path).read_bytes()).hexdigest()
    assert facts["donor's SHA-256"] == hashlib.sha256(Path(donor.path).read_bytes()).hexdigest()
    assert "seed" in str(facts["seeds"])
    begun, written = (datetime.fromisoformat(str(facts[each])) for each in ("begun", "journal last written"))
    assert begun <= written
    assert origin.transplant(0) == f"ckptswap transplant --from {donor.path} --to {recipient.path}"


def test_a_continued_run_keeps_its_first_beginning(save: Save, skip: TaskSpec, tmp_path: Path) -> None:
    found = prepare(save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "run")
    ran(found)
    contents = plan_json(tmp_path / "run")
    contents["made"]["begun"] = "2020-02-20T20:20:20+00:00"
    write_plan_json(tmp_path / "run", contents)
    ran(found, command="again")
    assert load_provenance(tmp_path / "run").facts["begun"] == "2020-02-20T20:20:20+00:00"
    assert load_provenance(tmp_path / "run").facts["command"] == "again"
    ran(found, fresh=True)
    facts = load_provenance(tmp_path / "run").facts
    assert facts["begun"] != "2020-02-20T20:20:20+00:00"
    assert facts["command"] == FROM_PYTHON


def test_a_run_may_say_nothing_of_its_making(save: Save, skip: TaskSpec, tmp_path: Path) -> None:
    ran(prepare(save(1, "Skip"), save(0, "Skip"), skip, run_dir=tmp_path / "run"))
    contents = plan_json(tmp_path / "run")
    del contents["made"]
    write_plan_json(tmp_path / "run", contents)
    facts = load_provenance(tmp_path / "run").facts
    assert (facts["command"], facts["begun"], facts["ckptswap"]) == (None, None, None)


def test_renamed_tensors_have_no_command(tmp_path: Path) -> None:
    key = {"names": {"donor": {"x.w": "w"}, "recipient": {}}}
    RunFolder(tmp_path).write_plan(run_plan(key))
    assert load_provenance(tmp_path).transplant(0) is None


def test_a_folder_that_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no sweep"):
        load_provenance(tmp_path)
