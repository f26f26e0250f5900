"""Guesses made before any variant is run, against finite differences of a plain network's loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import plain_network
from sweeping import prepare, sweep
from test_sweep_modes import READ, state_of
from torch import Tensor, nn
from torch.nn import functional

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.scoring.gradients import differentiable
from ckptswap.sweep import runner
from ckptswap.sweep import screen as screens
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.screen import loss, rooted
from ckptswap.task import Task, TaskSpec
from ckptswap.task.data import Batch
from ckptswap.task.task import load_task

STEP = 1e-7
"""Small enough to cross no kink of a ReLU."""
NO_GRADIENTS = """

class Numpy(Skip):
    def forward(self, x):
        return torch.from_numpy(super().forward(x).numpy())


class Steps(Skip):
    def forward(self, x):
        return torch.heaviside(super().forward(x), x)
"""


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


def test_a_gradient_s_guess_is_the_slope_of_the_loss(
    skip: TaskSpec, save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every cell, batch norm's running statistics among them."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    sweep(donor, recipient, skip, selection=READ, run_dir=tmp_path / "run", tolerance=0.01, screen="gradient")
    found = guesses(tmp_path / "run")
    assert sum("running_var" in name for names in found for name in names) == 2
    task = load_task(skip, recipient)
    for names, guess in found.items():
        assert guess == pytest.approx(slope(task, donor, recipient, names), rel=1e-4, abs=1e-7), names
    # A run that goes on takes its guesses from the plan.
    monkeypatch.setattr(runner, "screen", lambda *told: pytest.fail("guessed anew"))
    again = sweep(
        donor, recipient, skip, selection=READ, run_dir=tmp_path / "run", tolerance=0.01, screen="gradient"
    )
    assert any(row.guess is not None for row in again.rows)


def test_elements_that_do_not_count_have_no_part_in_it() -> None:
    output, seed = torch.randn(2, 1, 4, 4), torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (2, 4, 4), generator=seed)
    skipped = torch.rand(2, 4, 4, generator=seed) < 0.5
    plain = functional.binary_cross_entropy_with_logits(output[:, 0][~skipped], targets[~skipped].float())
    assert loss(output, targets.masked_fill(skipped, 255), 255).item() == pytest.approx(plain.item())
    several = torch.randn(2, 3, 4, 4)
    classes: Tensor = functional.cross_entropy(several.movedim(1, -1)[~skipped], targets[~skipped])
    assert loss(several, targets.masked_fill(skipped, 255), 255).item() == pytest.approx(classes.item())


def test_words_are_classes_along_the_last_dimension() -> None:
    """And are held against the next one, where labels repeat what went in; also where there are as many words as
    places."""
    ids, output = torch.tensor([[0, 1, 2], [2, 2, 0]]), torch.randn(2, 3, 3)
    batch = Batch({"input_ids": ids}, ids, np.arange(2))
    wanted = functional.cross_entropy(output[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert screens._loss(output, batch, None).item() == pytest.approx(wanted.item())
    kept = ids[:, 1:].flatten() != 2
    wanted = functional.cross_entropy(output[:, :-1].flatten(0, 1)[kept], ids[:, 1:].flatten()[kept])
    assert screens._loss(output, batch, 2).item() == pytest.approx(wanted.item())


def test_shapes_that_no_loss_is_for_are_a_sentence(skip: TaskSpec, save, own: Path, tmp_path: Path) -> None:
    labels = "def labels():\n    return [(x, torch.ones(1), g) for x, _, g in data()]\n"
    size = "def size(output, target):\n    return output.square().mean(dim=(1, 2, 3))\n\nsize.direction = 'min'\n"
    own.write_text("\n\n".join([own.read_text(), labels, size]))
    task = replace(skip, data=f"{own}:labels", metrics=(f"{own}:size",))
    with pytest.raises(
        UsageError, match=r"no loss for outputs \(6, 1, 12, 12\) and targets \(6, 1\).*--screen curvature"
    ):
        sweep(save(1, "Skip"), save(0, "Skip"), task, run_dir=tmp_path / "run", tolerance=0.01, screen="gradient")


# Curvature ------------------------------------------------------------------------------------------------------


def entropy_of(scores: Tensor, own: Tensor, *, probability: bool) -> Tensor:
    """The cross-entropy (C,) → () of an output against the classes that another says."""
    if len(own) == 1:
        share, wanted = (scores, own) if probability else (scores.sigmoid(), own.sigmoid())
        return -(wanted * share.log() + (1 - wanted) * (1 - share).log()).sum()
    if probability:
        return -(own * scores.log()).sum()
    return -(own.softmax(0) * scores.log_softmax(0)).sum()


@pytest.mark.parametrize("probability", [False, True])
@pytest.mark.parametrize("own", [[0.3], [0.3, 0.7], [0.2, 0.5, 0.3]], ids=len)
def test_roots_of_the_outputs_own_hessian(own: list[float], probability: bool) -> None:
    """The mean outer product over every way in which signs can fall is torch's Hessian."""
    scores = torch.tensor(own, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(own))), dtype=torch.float64)
    roots = torch.stack([rooted(scores, sign, probability=probability) for sign in signs])
    found = (roots[:, :, None] * roots[:, None, :]).mean(0)
    wanted = torch.autograd.functional.hessian(
        lambda other: entropy_of(other, scores, probability=probability), scores
    )
    torch.testing.assert_close(found, wanted)


def moved_by(
    task: Task, donor: Checkpoint, recipient: Checkpoint, names: tuple[str, ...], inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """The outputs (N, H, W) for a batch, and how they change with the way from recipient to donor: the product
    of torch's own Jacobian with the change, in double precision."""
    network = plain_network(task, donor, recipient, ()).double()
    ours, theirs = state_of(recipient), state_of(donor)

    def outputs(alpha: Tensor) -> Tensor:
        moved = {name: ours[name] + alpha * (theirs[name].double() - ours[name]) for name in names}
        return torch.func.functional_call(network, moved, inputs.double())[:, 0]

    at = torch.zeros((), dtype=torch.float64)
    with written_out():
        scores, moved = torch.autograd.functional.jvp(outputs, at, torch.ones_like(at))
    return scores.detach(), moved


@contextmanager
def written_out() -> Iterator[None]:
    """Batch norm as arithmetic, since torch's own has no gradient by running statistics."""

    def forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        mean, variance = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        return (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "forward", forward)
        yield


def test_slopes_are_those_of_a_jacobian(skip: TaskSpec, save) -> None:
    """In any direction of the outputs, along every cell's change."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    scorer = (planned := prepare(donor, recipient, replace(skip, limit=6), selection=READ)).runs_model
    inputs, changes = scorer.task.first_inputs(), screens.Changes(scorer, planned.variants)
    weights = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    along = changes.along(differentiable(scorer, inputs).slopes(weights))
    cells = [cell for cell in planned.plan.cells if cell.status == "measured"]
    assert len(cells) > 8
    for cell in cells:
        _, moved = moved_by(scorer.task, donor, recipient, cell.names, inputs)
        assert along[cell.variant] == pytest.approx(float((weights[:, 0] * moved).sum()), rel=1e-4, abs=1e-5)


def test_curvature_is_that_of_a_jacobian_and_a_hessian(skip: TaskSpec, save, monkeypatch) -> None:
    """In expectation: the mean of 150 random directions, of each of which the relative deviation is at most √2."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    monkeypatch.setattr(screens, "DIRECTIONS", 150)
    planned = prepare(donor, recipient, replace(skip, metrics=("iou",), limit=6), selection=READ)
    guesses = screens.screen("curvature", planned.runs_model, planned.variants)
    task = planned.task
    for cell in (cell for cell in planned.plan.cells if cell.status == "measured"):
        scores, moved = moved_by(task, donor, recipient, cell.names, task.first_inputs())

        def entropy(other: Tensor, own: Tensor = scores.sigmoid()) -> Tensor:
            return -(own * other.sigmoid().log() + (1 - own) * (1 - other.sigmoid()).log()).sum()

        _, bent = torch.autograd.functional.hvp(entropy, scores, moved)
        wanted = float((moved * bent).sum()) / (2 * scores.numel())
        assert guesses[cell.variant] == pytest.approx(wanted, rel=4 * (2 / 150) ** 0.5), cell.names


def test_curvature_needs_no_labels_and_no_metric_with_gradients(skip: TaskSpec, save, own: Path, tmp_path) -> None:
    """Of a function of one's own, in the space of the outputs themselves; half the way is a quarter as bent."""
    own.write_text(own.read_text() + "\n\ndef images():\n    return [(x,) for x, _, _ in data()]\n")
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    for name, task in {
        "kl": replace(skip, data=f"{own}:images", metrics=("kl",)),
        "own": skip,
    }.items():
        how = {"selection": READ, "run_dir": tmp_path / name, "tolerance": 0.01, "alphas": (0.5,)}
        result = sweep(donor, recipient, task, screen="curvature", **how)
        assert result.screen is not None
        assert result.screen.variants == sum(row.status == "measured" for row in result.rows) > 8
        plan = RunFolder(tmp_path / name).read_plan()
        for cell in plan.plan.cells:
            for half in plan.plan.path(cell) if cell.status == "measured" else ():
                values = plan.screen.values
                assert values[half.id] == pytest.approx(values[cell.variant] / 4)


@pytest.mark.parametrize("screen", ["gradient", "curvature"])
@pytest.mark.parametrize("name", ["Numpy", "Steps"])
def test_a_model_without_gradients_is_one_sentence(
    screen: str, name: str, skip: TaskSpec, save, own: Path, tmp_path: Path
) -> None:
    """One that cannot be captured, and one of whose operations torch knows no gradient."""
    own.write_text(own.read_text() + NO_GRADIENTS)
    task = replace(skip, model=f"{own}:{name}")
    run = tmp_path / "run"
    args = {"run_dir": run, "tolerance": 0.01}
    with pytest.raises(
        UsageError, match=rf"--screen {screen} finds no gradients of this model.*use --screen sample:4"
    ):
        sweep(save(1, "Skip"), save(0, "Skip"), task, screen=screen, **args)
    assert not run.exists()
    assert sweep(save(1, "Skip"), save(0, "Skip"), task, screen="sample:4", **args).screen is not None
