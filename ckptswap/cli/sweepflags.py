"""The flags of a sweep and of its run's folder: made of the fields of `SweepSpec` and `RunOptions`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ckptswap.cli.flags import TASK, Patterns, flags_of
from ckptswap.records import option
from ckptswap.sweep.spec import Judging, RunOptions, SweepSpec

SPEC = flags_of(SweepSpec)  # what is swapped, and what is scored beside it
OPTIONS = flags_of(RunOptions)  # how much is computed, how, and where
WHERE = {name: OPTIONS[name] for name in ("executor", "slurm", "ray_address")}
JUDGING = flags_of(Judging)  # by what a table is judged
TOLERANCE: Any = field(default=None, metadata=Judging.__dataclass_fields__["tolerance"].metadata)


@dataclass
class CalibrationFlags:
    """On what batch norm's statistics are estimated anew."""

    recalibrate_bn: int | None = option(
        None, "Also estimate BN statistics anew, on N batches.", metavar="N", least=1, defaults="file"
    )
    calibration_data: str | None = option(
        None, "For that: which data. [default: of lab:mni its training part]", metavar="SPEC", defaults="never"
    )
    calibration_args: Patterns = option(
        None, "Arguments of that data's callable.", metavar="K=V,…", defaults="never"
    )


@dataclass
class BothFlags:
    """The other direction, with a task of its own."""

    both: bool = option(
        False, "Also the other way: from the recipient to the donor, on the donor's task.", defaults="file"
    )
    back_metric: Patterns = option(None, "With --both: the metric of that way.", metavar="NAME", defaults="file")
    back_target: Literal["masks", "input"] | None = option(
        None, "With --both: what to predict that way. [default: the other of masks and input]", defaults="file"
    )


CALIBRATION = flags_of(CalibrationFlags)
NAMED_AGAIN = {name: TASK[name] for name in ("model", "model_args", "data", "data_args", "metric", "group")}
"""What a stranger's run folder names, named again."""
CLAIMS = option(False, "Judge the claims of arXiv:2008.03414 on it, too.", defaults="file")
EVERY = option(False, "In the table, every row, the heatmap and all kinds.", flag="all", defaults="file")
