"""What would make a checkpoint fit a model: flags that were tried, and only then named."""

from collections.abc import Sequence

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, near
from ckptswap.hints import exclusions, flags_for, prefix_rules, with_flags
from ckptswap.renaming import renamed
from ckptswap.shape_order import can_be_paired
from ckptswap.shell import joined
from ckptswap.task.fit import Fit, State, fit_of
from ckptswap.ties import equal

OTHER_MODEL = "give the model's own arguments with --model and --model-args"
_EXCLUSIONS_MOST = 6
_HINTS_MOST = 3
_NAMES_MOST = 500
"""Names among which near ones are looked for: it takes their number times that of the missing."""


def remedy(state: State, checkpoint: Checkpoint, fit: Fit) -> str:
    """What to do where a checkpoint does not fit: flags under which it would, else what comes nearest.

    `fit` is how it stands, with what the user has excluded left aside.
    """
    packed = [group for group in fit.checkpoint.ties.quantised if not any(name in state for name in group)]
    if packed:
        return (
            f"the file holds quantised weights in parts ({equal(packed, ' + ')}), for which the model has no "
            "place: build it as it was when it was saved, or give a file from before it was quantised"
        )
    flags, better = _renamed(state, checkpoint, fit)
    if better.missing and can_be_paired(fit.checkpoint, fit.own):
        return "--match shape-order pairs them: the model has the same shapes in the same order"
    if not better.loaded:
        return OTHER_MODEL
    instead = " in place of the --map and --strip-prefix that were given" if flags and checkpoint.renames else ""
    if better.kept:
        return _in_part(state, better, flags) + instead
    unneeded = ", if what is left out is not needed" if better.unexpected else ""
    return f"{joined([*flags, *_left_out(better)])} makes it fit{instead}{unneeded}"


def _renamed(state: State, checkpoint: Checkpoint, fit: Fit) -> tuple[list[str], Fit]:
    """Flags that give the file's tensors other names, and the fit with them; none where no more fits then."""
    if not fit.missing:
        return [], fit
    own = renamed(checkpoint, {new: old for old, new in checkpoint.renames.items()})
    theirs = {name: entry.shape for name, entry in own.items()}
    flags = flags_for(prefix_rules(theirs, {name: tuple(value.shape) for name, value in state.items()}))
    try:
        better = fit_of(state, with_flags(own, flags))
    except CkptswapError:
        return [], fit
    return (flags, better) if len(better.loaded) > len(fit.loaded) else ([], fit)


def _left_out(fit: Fit) -> list[str]:
    """The flags that leave out what the model has no place for."""
    if not fit.unexpected:
        return []
    extra = [fit.checkpoint[name] for name in fit.unexpected]
    patterns = exclusions(extra, [fit.checkpoint[name] for name in fit.loaded])
    if len(patterns) > _EXCLUSIONS_MOST:
        return ["--partial"]
    if any(pattern.startswith("=") for pattern in patterns):
        return [word for pattern in patterns for word in ("--exclude", pattern)]
    return ["--exclude", ",".join(patterns)]


def _in_part(state: State, fit: Fit, flags: Sequence[str]) -> str:
    words = joined([*flags, "--partial"])
    here = f"{len(fit.loaded)} of the model's {len(state)} tensors"
    if 2 * len(fit.loaded) < len(state):
        return f"{OTHER_MODEL} ({words} would load the {here} that fit)"
    return f"{_near(fit)}{words} loads the {here} that fit and leaves the rest as initialised; or {OTHER_MODEL}"


def _near(fit: Fit) -> str:
    if len(fit.missing) > _HINTS_MOST or not 0 < len(fit.unexpected) <= _NAMES_MOST:
        return ""
    hints = [f"for {name} {hint} " for name in fit.missing if (hint := near(name, fit.unexpected, count=1))]
    return "".join(hints)
