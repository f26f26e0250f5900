"""`ckptswap transplant`: give one checkpoint some tensors of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ckptswap.cli.flags import DropUnreadFlag, ForceFlag, NameFlags, SelectionFlags, flags
from ckptswap.cli.terminal import emit, progress, say, tell_unmatched, warn
from ckptswap.errors import MismatchError, listing
from ckptswap.report.text import plural, safe

if TYPE_CHECKING:
    from ckptswap.transplant import Transplant


@flags
def transplant(
    donor: Annotated[str, typer.Option("--from", metavar="DONOR", help="The checkpoint that gives.")],
    recipient: Annotated[str, typer.Option("--to", metavar="RECIPIENT", help="The checkpoint that receives.")],
    select: SelectionFlags,
    names: NameFlags,
    alpha: Annotated[float, typer.Option(help="How far to go: 0 is the recipient, 1 the donor.")] = 1.0,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out what the donor lacks or has in another shape or dtype."),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="FILE", help="[default: RECIPIENT+SELECTION@DONOR.safetensors here]"),
    ] = None,
    drop_unread: DropUnreadFlag = False,
    force: ForceFlag = False,
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link shards that do not change instead of copying them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken; write nothing.")] = False,
) -> None:
    """Write the recipient with the selected tensors taken from the donor, and print the path written.

    \b
    Examples:
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --kind conv.bias
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --only 'bn.running_*' --dry-run
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors \\
        --layers encoder.3 --alpha 0.5 -o mix.safetensors
    """
    from ckptswap.formats import open_checkpoint
    from ckptswap.transplant import left_behind, plan_transplant
    from ckptswap.transplant import transplant as write

    with open_checkpoint(donor) as giving, open_checkpoint(recipient) as receiving:
        own = giving, receiving
        giving, receiving = names.matched(*own)
        selection = select.selection()
        try:
            plan = plan_transplant(giving, receiving, selection, alpha=alpha, skip_missing=skip_missing)
        except MismatchError as error:
            hint = names.hint(*own)
            remedy = f"{hint}; else {error.remedy}" if hint else error.remedy
            raise MismatchError(error.message, remedy=remedy) from None
        tell_unmatched(selection, receiving)
        warn(plan.warnings)
        warn(left_behind(plan, out))
        if plan.misfits:
            say(f"left out: {listing([f'{each.name} ({each.reason})' for each in plan.misfits])}")
        what = _what(plan, donor, recipient)
        if dry_run:
            for entry in plan.moved:
                emit(safe(entry.name))
            say(f"would take {what}; would write {out or plan.default_output}")
            return
        with progress("writing") as tell:
            written = write(plan, out, force=force, link=link, drop_unread=drop_unread, progress=tell)
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
