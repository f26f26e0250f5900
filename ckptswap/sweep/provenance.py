"""Where a run's numbers come from: command, versions, hashes, seeds, times, read from its `plan.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ckptswap.shell import joined
from ckptswap.sweep.donors import is_made
from ckptswap.sweep.run_folder.journal import journal_files, read_plan
from ckptswap.version import __version__

FROM_PYTHON = "started from Python, without a command"


@dataclass(frozen=True)
class Provenance:
    """What a run was made of. `donors` and `recipient` are as they were named; `facts` are in reading order, each
    None where the run does not tell. `is_renamed`: tensors go by other names than in the files."""

    recipient: str
    donors: tuple[str, ...]
    facts: Mapping[str, str | None]
    is_renamed: bool = False

    def transplant(self, donor: int) -> str | None:
        """The beginning of the command that takes tensors from a donor; None where one command cannot: for a donor
        that is no file, and under other names than the files'.

        >>> Provenance("b.pt", ("a b.pt", "zeros"), {}).transplant(0)
        "ckptswap transplant --from 'a b.pt' --to b.pt"
        """
        if self.is_renamed or is_made(self.donors[donor]):
            return None
        return joined(["ckptswap", "transplant", "--from", self.donors[donor], "--to", self.recipient])


def made_by(folder: Path, command: str | None, *, anew: bool) -> dict[str, str | None]:
    """What a run remembers of its making: the last command, this version, and when it was begun first."""
    begun = None if anew else read_plan(folder).get("made", {}).get("begun")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": command, "version": __version__, "begun": begun or now}


def load_origin(run_dir: str | Path) -> Provenance:
    """What a run folder says of itself. Raises `RunError` for a folder that is no run."""
    folder = Path(run_dir)
    contents = read_plan(folder)
    key, made = contents.get("key", {}), contents.get("made", {})
    donors, recipient = contents.get("donors", []), contents.get("recipient", "")
    last = max((os.path.getmtime(each) for each in journal_files(folder)), default=None)
    written = None if last is None else datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
    hashes = key.get("donor")
    facts: dict[str, str | None] = {
        "command": made.get("command") or (FROM_PYTHON if made else None),
        "ckptswap": made.get("version"),
        **{name: str(version) for name, version in (key.get("versions") or {}).items()},
        "recipient": recipient,
        "recipient's SHA-256": key.get("recipient"),
        "donor": ", ".join(donors),
        "donor's SHA-256": ", ".join(hashes) if isinstance(hashes, list) else hashes,
        "data's SHA-256": key.get("data"),
        **{name: _said(value) for name, value in (key.get("task") or {}).items() if value is not None},
        "seeds": _seeds(donors),
        "begun": made.get("begun"),
        "journal last written": written,  # by its files' times, which a copied folder has from its copying
    }
    return Provenance(recipient, tuple(donors), facts, any(_renames(key.get("names") or {})))


def _renames(names: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    for given in names.values():
        yield from given if isinstance(given, list) else [given]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seeds(donors: list[str]) -> str:
    """Which chance there was: the intervals' resampling has a fixed seed, a made donor says its own."""
    from ckptswap.statistics.totals import SEED

    made = [each for each in donors if is_made(each) and ":" in each]
    return "; ".join([f"intervals resample under seed {SEED}", *(f"donor {each}" for each in made)])
