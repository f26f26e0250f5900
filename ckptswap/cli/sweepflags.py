"""The flags of a sweep and of its run's folder: made of the fields of `SweepSpec` and `RunOptions`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptswap.cli.flags import FILE, NEVER, TASK, Group, Patterns, flags_of
from ckptswap.sweep.spec import RunOptions, SweepSpec

RunArgument = Annotated[str, typer.Argument(help="A run's folder, finished or not.", show_default=False)]
SPEC = flags_of(SweepSpec)
"""What is swapped, and what is scored beside it."""
OPTIONS = flags_of(RunOptions)
"""How much is computed, how, and where."""
WHERE = {name: OPTIONS[name] for name in ("executor", "slurm", "ray_address")}
ToleranceFlag = OPTIONS["tolerance"][0]
CALIBRATION: Group = {
    "recalibrate_bn": (
        Annotated[
            int | None,
            typer.Option(metavar="N", min=1, help="Also estimate BN statistics anew, on N batches."),
            FILE,
        ],
        None,
    ),
    "calibration_data": (
        Annotated[
            str | None,
            typer.Option(metavar="SPEC", help="For that: which data. [default: of lab:mni its training part]"),
            NEVER,
        ],
        None,
    ),
    "calibration_args": (
        Annotated[Patterns, typer.Option(metavar="K=V,…", help="Arguments of that data's callable."), NEVER],
        None,
    ),
}
BOTH: Group = {
    "both": (
        Annotated[
            bool,
            typer.Option(
                "--both", help="Also the other way: from the recipient to the donor, on the donor's task."
            ),
            FILE,
        ],
        False,
    ),
    "back_metric": (
        Annotated[
            Patterns,
            typer.Option("--back-metric", metavar="NAME", help="With --both: the metric of that way."),
            FILE,
        ],
        None,
    ),
    "back_target": (
        Annotated[
            Literal["masks", "input"] | None,
            typer.Option(help="With --both: what to predict that way. [default: the other of masks and input]"),
            FILE,
        ],
        None,
    ),
}
"""The other direction, with a task of its own."""
NAMED: Group = {
    "donor": (
        Annotated[
            Patterns,
            typer.Option("--from", metavar="DONOR", help="Of a stranger's folder: its donor; repeat for each."),
            NEVER,
        ],
        None,
    ),
    "recipient": (
        Annotated[
            str | None, typer.Option("--recipient", metavar="RECIPIENT", help="The same: its recipient."), NEVER
        ],
        None,
    ),
    **{name: TASK[name] for name in ("model", "model_args", "data", "data_args", "metric", "group")},
}
"""What a stranger's run folder names, named again."""
ClaimsFlag = Annotated[
    bool, typer.Option("--claims", help="Judge the claims of arXiv:2008.03414 on it, too."), FILE
]
EveryFlag = Annotated[
    bool, typer.Option("--all", help="In the table, every row, the heatmap and all kinds."), FILE
]
