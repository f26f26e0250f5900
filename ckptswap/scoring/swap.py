"""Swapping tensors in the model itself, bit-exactly undone: the plain way to make a variant, and the reference."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, partial

import torch
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint, overlay
from ckptswap.errors import MismatchError, ModelError, listing
from ckptswap.neutral import neutral
from ckptswap.scoring.variant import NEUTRAL
from ckptswap.task.callables import STDOUT_ASIDE
from ckptswap.task.weights import state_of, to_torch
from ckptswap.ties import covered, extent_of, ties_of
from ckptswap.twins import alike

_LEAVE_OUT = "leave it out with --exclude"


class Swaps:
    """The model's own tensors, which hold the recipient, and the donors' in the same form."""

    def __init__(self, model: nn.Module, *donors: Checkpoint, recipient: Checkpoint | None = None) -> None:
        self.donors, self.recipient = donors, recipient
        self.state = state_of(model)
        self.ties = ties_of(self.state)
        self._given: dict[tuple[str, int], Tensor] = {}
        self._unheard = cache(partial(_unheard, model, self))

    def donor(self, number: int) -> Checkpoint:
        """The donor of this number; of `NEUTRAL`, the recipient without its values."""
        return self._neutral if number == NEUTRAL else self.donors[number]

    @cached_property
    def _neutral(self) -> Checkpoint:
        assert self.recipient is not None
        return neutral(self.recipient)

    def given(self, name: str, donor: int = 0, alpha: float = 1.0) -> Tensor:
        """The donor's tensor, in the model's dtype, layout and place. Raises `MismatchError` for an unknown
        name, and for another shape, which copying would stretch.
        """
        if name not in self.state:
            raise MismatchError(f"the model has no tensor {name!r}", remedy=_LEAVE_OUT)
        if alpha != 1.0:  # with the bits that `transplant --alpha` writes; not kept, being many
            assert self.recipient is not None
            blended = overlay(self.recipient, self.donor(donor), [name], alpha=alpha)
            return self._as_own(name, to_torch(blended.read(name)))
        if (name, donor) not in self._given:
            self._given[name, donor] = self._as_own(name, to_torch(self.donor(donor).read(name)))
        return self._given[name, donor]

    def _as_own(self, name: str, theirs: Tensor) -> Tensor:
        own = self.state[name]
        if own.shape != theirs.shape:
            shapes = f"{list(theirs.shape)} in the donor, {list(own.shape)} in the model"
            raise MismatchError(f"{name}: {shapes}", remedy=_LEAVE_OUT)
        return torch.empty_like(own).copy_(theirs)

    def taken(self, names: Iterable[str], donor: int = 0, alpha: float = 1.0) -> dict[str, Tensor]:
        """What must be written to make a variant, in the order of the state dict.

        A tensor is written under all of its names, whichever is taken. What shares only part of its bytes keeps
        the recipient's, as it would in the variant's file; `fault` tells whether that can be. What that file does
        not have goes with the tensor of which it is a part.
        """
        given = {name: self.given(name, donor, alpha) for name in dict.fromkeys(names)}
        given = {twin: value for name, value in given.items() for twin in self.ties.twins(name)} | given
        touched = set(self.ties.closed(given))
        if self.recipient is not None and len(touched) > len(given):
            touched -= covered(self.state, given).difference(given, self.recipient)
        return {name: given.get(name, value) for name, value in self.state.items() if name in touched}

    def fault(self, names: Iterable[str], donor: int = 0, alpha: float = 1.0) -> str | None:
        """Why the model with these tensors is not what was meant: it holds other values, or nothing is changed
        although donor and recipient differ.
        """
        taken = self.taken(names, donor, alpha)
        with self.holding(taken) as (meant, before):
            lost = [name for name, value in meant.items() if not same_bits(self.state[name], value)]
            changed = any(not same_bits(self.state[name], value) for name, value in before.items())
        if lost:
            return f"the model does not hold what was swapped in ({listing(lost, most=3)}): others write over it"
        unheard = [name for name in taken if name in self._unheard(donor)]
        if unheard:
            return f"the model's own way of loading does not keep what it is given ({listing(unheard, most=3)})"
        if changed or alpha != 1.0 or self.recipient is None:
            return None
        pairs = ((self.recipient.get(name), self.donor(donor).get(name)) for name in taken)
        if all(own is None or theirs is None or alike(own, theirs) for own, theirs in pairs):
            return None
        what = listing(list(taken), 3)
        return f"the swap changes nothing in the model, though donor and recipient differ ({what})"

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """The model with these tensors written to it; the recipient's bits come back at the end. Gives both."""
        written = {name: value.clone() for name, value in values.items()}
        kept = {name: self.state[name].clone() for name in written}
        try:
            for name, value in written.items():
                self.state[name].copy_(value)
            yield written, kept
        finally:
            for name, value in kept.items():
                self.state[name].copy_(value)


def _unheard(model: nn.Module, swaps: Swaps, donor: int) -> frozenset[str]:
    """The names under which the model holds other values than a donor's when it loads these by its own code, if it
    has any. Raises `ModelError` where that puts other tensors in the place of its own.
    """
    if not _has_loading_code(model):
        return frozenset()
    theirs = swaps.donor(donor)
    fit = [name for name, own in swaps.state.items() if name in theirs and theirs[name].shape == own.shape]
    values = swaps.taken(fit, donor)
    with swaps.holding({name: torch.zeros_like(value) for name, value in values.items()}), STDOUT_ASIDE:
        try:
            model.load_state_dict({name: value.clone() for name, value in {**swaps.state, **values}.items()})
        except Exception:  # whoever's code it is: what it refuses to load at all is not known to be lost
            return frozenset()
        now = model.state_dict()
        if any(extent_of(own) != extent_of(now.get(name)) for name, own in swaps.state.items()):
            raise ModelError(
                "the model puts other tensors in the place of its own when it loads a state dict",
                remedy="let it copy the values instead",
            )
        return frozenset(name for name, value in values.items() if not same_bits(swaps.state[name], value))


def _has_loading_code(model: nn.Module) -> bool:
    """Whether others than torch have a say in how a state dict is loaded."""
    return any(
        module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        or not all(
            str(getattr(method, "__module__", "")).startswith("torch.")
            for method in (module.load_state_dict, module._load_from_state_dict)
        )
        for module in model.modules()
    )


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits, NaN included.

    >>> same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    False
    """
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return torch.equal(*(tensor.contiguous().view(-1).view(torch.uint8) for tensor in (a, b)))
