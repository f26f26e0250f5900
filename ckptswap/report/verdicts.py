"""What the verdicts mean, in words for people."""

from ckptswap.report.rows import mode_words
from ckptswap.report.text import number
from ckptswap.statistics import LEAST_GROUPS, Verdict
from ckptswap.sweep.result import SweepResult


def meanings(result: SweepResult) -> dict[Verdict, str]:
    """Each verdict in a sentence or two, with this run's tolerance.

    >>> meanings(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()))["sensitive"]
    'It is shown that the drop is above the tolerance, 0.01: this part of the donor breaks the network.'
    """
    bound = f"the tolerance, {number(result.tolerance)}"
    part = "this variant" if mode_words(result) or result.mode == "lattice" else "this part of the donor"
    rate = (
        "Of all verdicts of this table at most 5 % are expected to be wrong."
        if result.error == "fdr"
        else "In at most 5 % of such tables any verdict is wrong."
    )
    return {
        "reusable": f"It is shown that the drop is below {bound}; or the values are equal in both, or never read. "
        f"{rate} That is of each alone: drops may add up where several are taken together, which "
        "`ckptswap select` tells.",
        "unused": "Reusable, but so would zeros be: the network does without these values, so that nothing is "
        "said of how good the donor's are.",
        "sensitive": f"It is shown that the drop is above {bound}: {part} breaks the network.",
        "undecided": f"Neither is shown: {bound}, is among the drops that these samples allow. More groups of "
        f"samples narrow that ({LEAST_GROUPS} are the least that tell anything), and whole kinds (--by kind) have "
        "clearer drops than single layers.",
    }
