"""What decides scores, by content: the key under which a run's scores may be used again.

Tolerance, selection and ways of splitting are not part of it: they only decide which scores are wanted, and how
they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.scoring.scorer import Scorer


def conditions(scorer: Scorer, donors: Sequence[Checkpoint], recipient: Checkpoint) -> dict[str, Any]:
    """Everything that a score depends on, as a JSON object; the parts' names are fit for an error message."""
    hashes, renames = [donor.sha256() for donor in donors], [dict(donor.renames) for donor in donors]
    return {
        "donor": hashes if len(donors) > 1 else hashes[0],
        "recipient": recipient.sha256(),
        "names": {"donor": renames if len(donors) > 1 else renames[0], "recipient": dict(recipient.renames)},
        **scorer.identity(),
        "exactness": scorer.exactness,
    }
