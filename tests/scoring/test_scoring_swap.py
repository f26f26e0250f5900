"""Swapping in the model itself: what is written, in which order, and that every bit comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain import bits, plain_network

from ckptswap.errors import MismatchError
from ckptswap.scoring.swap import Swaps
from ckptswap.task import TaskSpec, load_task


@pytest.mark.parametrize(
    "names", [(), ("one.weight",), ("two.weight",), ("one.weight", "two.weight"), ("two.weight", "one.bias")]
)
def test_a_swapped_model_is_the_loaded_one(own: Path, spec: TaskSpec, save, names) -> None:
    donor, recipient = save(1, "Tied"), save(0, "Tied")
    task = load_task(replace(spec, model=f"{own}:Tied"), recipient)
    swaps, before = Swaps(task.model, donor), bits(task.model)
    with swaps.holding(swaps.taken(names)):
        assert bits(task.model) == bits(plain_network(task, donor, recipient, names))
    assert bits(task.model) == before


def test_nan_bits_of_the_recipient_are_kept(spec: TaskSpec, save) -> None:
    odd = torch.tensor([0x7FC12345, 0x7FC54321, 0x7F812345, 0], dtype=torch.int32).view(torch.float32)
    donor, recipient = save(1), save(0, unused__bias=odd[:2], enc__1__bias=odd)
    task = load_task(spec, recipient)
    swaps, before = Swaps(task.model, donor), bits(task.model)
    with swaps.holding(swaps.taken(["unused.bias", "enc.1.bias"])):
        assert bits(task.model) != before
    assert bits(task.model) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_puts_the_recipient_back(spec: TaskSpec, save, error: type[BaseException]) -> None:
    donor, recipient = save(1), save(0)
    task = load_task(spec, recipient)
    swaps, before = Swaps(task.model, donor), bits(task.model)

    def work() -> None:
        with swaps.holding(swaps.taken(["dec.3.bias", "enc.0.weight"])):
            assert bits(task.model) != before
            raise error

    with pytest.raises(error):
        work()
    assert bits(task.model) == before


def test_the_donors_tensors_take_the_models_dtype_and_layout(spec: TaskSpec, save) -> None:
    donor, recipient = save(1, dtype=torch.float64), save(0)
    task = load_task(spec, recipient)
    task.model.to(memory_format=torch.channels_last)
    swaps = Swaps(task.model, donor)
    own, given = swaps.state["dec.0.weight"], swaps.given("dec.0.weight")
    assert (given.dtype, given.stride()) == (own.dtype, own.stride())
    assert given.stride() != torch.empty(given.shape).stride(), "or this says nothing"
    assert torch.equal(given, torch.from_numpy(donor.read("dec.0.weight")).float())
    assert swaps.given("dec.0.weight") is given, "it is read once"


def test_a_name_that_the_model_lacks(spec: TaskSpec, save) -> None:
    donor, recipient = save(1), save(0)
    task = load_task(spec, recipient)
    swaps, before = Swaps(task.model, donor), bits(task.model)
    for names in (["nothing"], ["dec.3.bias", "nothing"]):
        with (
            pytest.raises(MismatchError, match=r"no tensor 'nothing'.*--exclude"),
            swaps.holding(swaps.taken(names)),
        ):
            pass
    assert bits(task.model) == before


@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (1, 1, 1, 1), (4, 1, 1)])
def test_a_donor_of_another_shape(spec: TaskSpec, save, shape: tuple[int, ...]) -> None:
    """One that copying would stretch, too."""
    donor, recipient = save(1, dec__3__weight=torch.zeros(shape)), save(0)
    task = load_task(spec, recipient)
    swaps, before = Swaps(task.model, donor), bits(task.model)
    words = r"dec\.3\.weight: \[.*\] in the donor, \[1, 4, 1, 1\] in the model: leave it out"
    with pytest.raises(MismatchError, match=words), swaps.holding(swaps.taken(["dec.3.bias", "dec.3.weight"])):
        pass
    assert bits(task.model) == before
