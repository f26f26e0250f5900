"""`ckptswap transplant`: give one checkpoint some tensors of another."""

from contextlib import ExitStack
from dataclasses import MISSING, dataclass

from ckptswap import api, lazy
from ckptswap.cli.flags import DROP_UNREAD, FORCE, PAIR_NAMES, SELECTION, Keywords, flags
from ckptswap.cli.terminal import emit, say
from ckptswap.errors import listing
from ckptswap.messages import warn
from ckptswap.records import option
from ckptswap.report.text import plural, safe
from ckptswap.transplant import Transplant


@dataclass
class FarFlags:
    """How far to go, and past what."""

    alpha: float = option(1.0, "How far to go: 0 is the recipient, 1 the donor.", defaults="file")
    skip_missing: bool = option(
        False, "Leave out what the donor lacks or has in another shape or dtype.", defaults="file"
    )
    cast: bool = option(False, "Round the donor's floats to the recipient's dtype.", defaults="file")


@dataclass
class WritingFlags:
    """Where to write, and how."""

    out: str | None = option(
        None, "[default: RECIPIENT+SELECTION@DONOR.safetensors here]", short="o", metavar="FILE", defaults="never"
    )
    drop_unread: bool = DROP_UNREAD
    force: bool = FORCE
    link: bool = option(False, "Hard-link shards that do not change instead of copying them.")


@flags(select=SELECTION, names=PAIR_NAMES)
def transplant(
    *,
    donor: str = option(MISSING, "The checkpoint that gives.", flag="from", metavar="DONOR", defaults="never"),
    recipient: str = option(
        MISSING, "The checkpoint that receives.", flag="to", metavar="RECIPIENT", defaults="never"
    ),
    select: Keywords,
    names: Keywords,
    writing: WritingFlags,
    far: FarFlags,
    dry_run: bool = option(False, "Say what would be taken; write nothing.", defaults="file"),
) -> None:
    """Write the recipient with the selected tensors taken from the donor, and print the path.

    \b
    Examples:
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --kind conv.bias
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --only 'bn.running_*' --dry-run
      ckptswap transplant --from reconstruct.safetensors --to segment.safetensors \\
        --layers encoder.3 --alpha 0.5 -o mix.safetensors
    """
    with ExitStack() as stack:
        plan = api.planned_transplant(donor, recipient, stack, **vars(far), **select, **names)
        warn(lazy.transplant.left_behind(plan, writing.out))
        if plan.misfits:
            say(f"left out: {listing([f'{misfit.name} ({misfit.reason})' for misfit in plan.misfits])}")
        what = _what(plan, donor, recipient)
        if dry_run:
            for entry in plan.moved:
                emit(safe(entry.name))
            say(f"would take {what}; would write {writing.out or plan.default_output}")
            return
        written = api.carried_out(plan, **vars(writing))
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
    once = plan.recipient.ties.once
    moved = len(once(entry.name for entry in plan.moved))
    same = moved - len(once(plan.changed))
    count = "all" if same == moved else f"{same:,}"
    return (
        f"; {count} of these {'is' if count == '1' else 'are'} the same in both, and changed nothing"
        if same
        else ""
    )
