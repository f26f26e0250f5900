"""Where a run's numbers come from: command, versions, hashes, seeds, times, read from its `plan.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from ckptswap.shell import joined
from ckptswap.statistics.totals import SEED
from ckptswap.sweep.donors import is_made
from ckptswap.sweep.run_folder.folder import RunFolder

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


def _known_by(side: str, told: str | None) -> dict[str, str | None]:
    """The hash of a checkpoint, or where it lies elsewhere, what its server calls this version of it."""
    return {f"{side}'s version" if told and "://" in told else f"{side}'s SHA-256": told}


def load_provenance(run_dir: str | Path) -> Provenance:
    """What a run folder says of itself. Raises `RunError` for a folder that is no run."""
    folder = RunFolder(run_dir)
    plan = folder.read_plan()
    key, made, donors, recipient = plan.key, plan.made, plan.spec.donors, plan.spec.recipient
    last = folder.written_at()
    written = None if last is None else datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
    task = {name: value for name, value in (key.get("task") or {}).items() if value is not None}
    chance = [f"donor {donor}" for donor in donors if is_made(donor) and ":" in donor]
    facts: dict[str, str | None] = {
        "command": made.command or (FROM_PYTHON if made.begun else None),
        "ckptswap": made.version,
        **{name: str(version) for name, version in (key.get("versions") or {}).items()},
        "recipient": recipient,
        **_known_by("recipient", key.get("recipient")),
        "donor": ", ".join(donors),
        **_known_by("donor", ", ".join(plan.donor_hashes) or None),
        "data's SHA-256": key.get("data"),
        **{name: of if isinstance(of, str) else json.dumps(of, ensure_ascii=False) for name, of in task.items()},
        "seeds": "; ".join([f"intervals resample under seed {SEED}", *chance]),
        "begun": made.begun,
        "journal last written": written,  # by its files' times, which a copied folder has from its copying
    }
    renames = chain.from_iterable(of if isinstance(of, list) else [of] for of in (key.get("names") or {}).values())
    return Provenance(recipient, donors, facts, any(renames))
