"""`ckptswap transplant`: give one checkpoint some tensors of another."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from ckptswap import api
from ckptswap.cli.flags import FILE, NAMES, NEVER, SELECTION, DropUnreadFlag, ForceFlag, Group, Keywords, flags
from ckptswap.cli.terminal import emit, say
from ckptswap.errors import listing
from ckptswap.report.text import plural, safe
from ckptswap.transplant import Transplant

WRITING: Group = {
    "out": (
        Annotated[
            str | None,
            typer.Option(
                "-o", "--out", metavar="FILE", help="[default: RECIPIENT+SELECTION@DONOR.safetensors here]"
            ),
            NEVER,
        ],
        None,
    ),
    "drop_unread": (DropUnreadFlag, False),
    "force": (ForceFlag, False),
    "link": (
        Annotated[
            bool, typer.Option("--link", help="Hard-link shards that do not change instead of copying them.")
        ],
        False,
    ),
}


@flags(select=SELECTION, names=NAMES, writing=WRITING)
def transplant(
    donor: Annotated[str, typer.Option("--from", metavar="DONOR", help="The checkpoint that gives."), NEVER],
    recipient: Annotated[
        str, typer.Option("--to", metavar="RECIPIENT", help="The checkpoint that receives."), NEVER
    ],
    select: Keywords,
    names: Keywords,
    writing: Keywords,
    alpha: Annotated[float, typer.Option(help="How far to go: 0 is the recipient, 1 the donor."), FILE] = 1.0,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out what the donor lacks or has in another shape or dtype."),
        FILE,
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken; write nothing."), FILE
    ] = False,
) -> None:
    """Write the recipient with the selected tensors taken from the donor, and print the path.

    \b
    Examples:
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --kind conv.bias
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --only 'bn.running_*' --dry-run
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors \\
        --layers encoder.3 --alpha 0.5 -o mix.safetensors
    """
    how = {"alpha": alpha, "skip_missing": skip_missing, **select, **names}
    with ExitStack() as stack:
        plan = api.planned_transplant(donor, recipient, stack, **how)
        api.warn_of_loss(plan, writing["out"])
        if plan.misfits:
            say(f"left out: {listing([f'{misfit.name} ({misfit.reason})' for misfit in plan.misfits])}")
        what = _what(plan, donor, recipient)
        if dry_run:
            for entry in plan.moved:
                emit(safe(entry.name))
            say(f"would take {what}; would write {writing['out'] or plan.default_output}")
            return
        written = api.carried_out(plan, **writing)
        say(f"took {what}{_unchanged(plan)}")
    emit(str(written))


def _what(plan: Transplant, donor: str, recipient: str) -> str:
    """What goes from one into the other, and how far: '3 tensors (48 bytes) from a into b'."""
    if not plan.moved:
        why = "alpha 0 is the recipient" if plan.alpha == 0 else "what cannot be mixed stays the recipient's"
        return f"nothing from {donor} into {recipient}: {why}"
    names = [entry.name for entry in plan.moved]
    once = plan.recipient.ties.once(names)
    size = sum(plan.recipient[name].nbytes for name in once)
    several = f" under {len(names)} names" if len(names) > len(once) else ""
    far = f", by {plan.alpha:g} of the way" if plan.alpha < 1 else ""
    what = f"{plural(len(once), 'tensor')}{several} ({plural(size, 'byte')})"
    return f"{what} from {donor} into {recipient}{far}"


def _unchanged(plan: Transplant) -> str:
    """How many of them the donor did not change."""
    once = plan.recipient.ties.once
    moved = len(once(entry.name for entry in plan.moved))
    same = moved - len(once(plan.changed))
    if not same:
        return ""
    return f"; {'all' if same == moved else f'{same:,}'} of these are the same in both, and changed nothing"
