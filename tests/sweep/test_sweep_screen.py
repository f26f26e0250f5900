"""Guesses made before any variant is run, against finite differences of a plain network's loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain import plain_network
from sweeping import sweep
from test_sweep_modes import READ, state_of
from torch import Tensor
from torch.nn import functional

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.screen import loss
from ckptswap.task import Task, TaskSpec
from ckptswap.task.task import load_task

STEP = 1e-7
"""Small enough to cross no kink of a ReLU."""


def guesses(run: Path) -> dict[tuple[str, ...], float]:
    """What a run's plan remembers of each cell."""
    told = RunFolder(run).read_plan()
    assert told.screen is not None
    values = told.screen.values
    return {cell.names: values[cell.variant] for cell in told.plan.cells if cell.variant in values}


def slope(task: Task, donor: Checkpoint, recipient: Checkpoint, names: tuple[str, ...]) -> float:
    """How fast the loss changes on the way from recipient to donor, in double precision."""
    network = plain_network(task, donor, recipient, ()).double()
    ours, theirs = state_of(recipient), state_of(donor)

    def at(alpha: float) -> float:
        moved = {
            name: ours[name].double() + alpha * (theirs[name].double() - ours[name].double()) for name in names
        }
        with torch.no_grad():
            outputs = (
                (torch.func.functional_call(network, moved, batch.inputs.double())[:, 0], batch.targets)
                for batch in task.batches()
            )
            return sum(
                functional.binary_cross_entropy_with_logits(found, wanted.double()).item()
                for found, wanted in outputs
            )

    return abs(at(STEP) - at(-STEP)) / (2 * STEP)


def test_a_gradient_s_guess_is_the_slope_of_the_loss(skip: TaskSpec, save, tmp_path: Path) -> None:
    """For every cell, batch norm's running statistics among them."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    sweep(donor, recipient, skip, selection=READ, run_dir=tmp_path / "run", tolerance=0.01, screen="gradient")
    found = guesses(tmp_path / "run")
    assert sum("running_var" in name for names in found for name in names) == 2
    task = load_task(skip, recipient)
    for names, guess in found.items():
        assert guess == pytest.approx(slope(task, donor, recipient, names), rel=1e-4, abs=1e-7), names


def test_elements_that_do_not_count_have_no_part_in_it() -> None:
    output, seed = torch.randn(2, 1, 4, 4), torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (2, 4, 4), generator=seed)
    skipped = torch.rand(2, 4, 4, generator=seed) < 0.5
    plain = functional.binary_cross_entropy_with_logits(output[:, 0][~skipped], targets[~skipped].float())
    assert loss(output, targets.masked_fill(skipped, 255), 255).item() == pytest.approx(plain.item())
    several = torch.randn(2, 3, 4, 4)
    classes: Tensor = functional.cross_entropy(several.movedim(1, -1)[~skipped], targets[~skipped])
    assert loss(several, targets.masked_fill(skipped, 255), 255).item() == pytest.approx(classes.item())


def test_shapes_that_no_loss_is_for_are_a_sentence(skip: TaskSpec, save, own: Path, tmp_path: Path) -> None:
    labels = "def labels():\n    return [(x, torch.ones(1), g) for x, _, g in data()]\n"
    size = "def size(output, target):\n    return output.square().mean(dim=(1, 2, 3))\n\nsize.direction = 'min'\n"
    own.write_text("\n\n".join([own.read_text(), labels, size]))
    task = replace(skip, data=f"{own}:labels", metrics=(f"{own}:size",))
    with pytest.raises(
        UsageError, match=r"no loss for outputs \(6, 1, 12, 12\) and targets \(6, 1\).*--screen rmse"
    ):
        sweep(save(1, "Skip"), save(0, "Skip"), task, run_dir=tmp_path / "run", tolerance=0.01, screen="gradient")
