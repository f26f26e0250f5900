"""Drawing the samples that a sweep's worst cells hit most: input, truth, baseline and variant, small."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from torch import Tensor

from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.statistics.totals import OfSet
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.run_folder.samples import PICTURE, Hit
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.task import Task
from ckptswap.task.data import Batch

CELLS, EACH = 3, 3  # how many of the worst cells are shown, and how many samples of each
SIDE = 192  # pixels of a picture's longer side at the most
_PALETTE = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
            (204, 121, 167))  # fmt: skip
"""Okabe and Ito's colours, class 0 black; the classes beyond begin again after black."""


def worst_samples(scorer: FullScorer, run: ScoredRun) -> Iterator[Hit]:
    """Draw them from a run that has its scores; nothing where there are no images. Raises what `Task.forward`
    raises."""
    task = scorer.task
    if task.metrics[0].compares is None or getattr(task.first_inputs(), "ndim", 0) != 4:
        return
    wanted = list(_worst_hits(run))
    numbers = {place: number for number, places in enumerate(run.scores.walk) for place in places.tolist()}
    drawn: dict[tuple[str, int], dict[str, str]] = {}
    needed = {numbers[place] for _, place, *_ in wanted}
    with task.pinned(), closing(task.data.numbered(needed)) as batches:
        for number, batch in batches:
            here = [(cell, place) for cell, place, *_ in wanted if numbers[place] == number]
            drawn |= _drawn(scorer, batch, here)
    for cell, place, baseline, variant, drop in wanted:
        if pictures := drawn.get((cell.variant, place)):
            yield Hit(
                cell.place, cell.kind, cell.donor, task.data.number(place), baseline, variant, drop, pictures
            )


def _worst_hits(run: ScoredRun) -> Iterator[tuple[Cell, int, float, float, float]]:
    """Of the finest split the cells with the largest drops, each variant once, and of each the samples, with their
    scores before and after, and drops. Cells count that have all samples, or as many as their verdict took."""
    depth = {cell: (cell.place is not None) + (cell.kind is not None) for cell in run.plan.cells}
    measured = (cell for cell in run.plan.cells if run.is_scored(cell))
    scored = [cell for cell in measured if run.decisions or run.scores.done(cell.variant) == run.scores.samples]
    finest = max((depth[cell] for cell in scored), default=0)
    cells = {cell.variant: cell for cell in scored if depth[cell] == finest}
    sign, before = 1.0 if run.metric.direction == "max" else -1.0, _by_sample(run, BASELINE)
    drops = {variant: sign * (before - _by_sample(run, variant)) for variant in cells}
    for variant in sorted(cells, key=lambda variant: -np.nanmean(drops[variant]))[:CELLS]:
        # A PSNR may be infinite, and nothing says by how much another is worse; what was not scored has none.
        own, after = np.where(np.isfinite(drops[variant]), drops[variant], 0.0), _by_sample(run, variant)
        for at in np.argsort(-own, kind="stable")[:EACH].tolist():
            if own[at] > 0:
                yield cells[variant], at, float(before[at]), float(after[at]), float(own[at])


def _by_sample(run: ScoredRun, variant: str) -> np.ndarray:
    """The score of each sample by itself (N,)."""
    assert not isinstance(run.reduce, OfSet), "such a metric compares no pictures"
    return np.asarray(run.reduce(run.statistics(variant), np.ones(run.scores.samples)), float).reshape(-1)


def _are_pictures(task: Task, output: Tensor, targets: Tensor) -> bool:
    """Whether a score compares masks or images of one size, not a few numbers a sample or one class of all."""
    if targets.dim() < 3 or targets.shape[-2:] != output.shape[-2:]:
        return False
    if task.metrics[0].compares == "classes":
        return output.dim() in (3, 4) and (targets.dim() == 3 or targets.shape[1] == 1)
    return output.dim() == 4


def _drawn(
    scorer: FullScorer, batch: Batch, here: Sequence[tuple[Cell, int]]
) -> dict[tuple[str, int], dict[str, str]]:
    task, baseline = scorer.task, scorer.task.forward(batch.inputs)
    if not _are_pictures(task, baseline, batch.targets):
        return {}
    at = {place: index for index, place in enumerate(batch.places.tolist())}
    cells = {cell.variant: cell for cell, _ in here}
    variants = [Variant(cell.variant, cell.names, cell.donor) for cell in cells.values()]
    outputs = {outcome.variant.id: outcome.output for outcome in scorer.in_full(batch.inputs, variants)}
    drawn = {}
    for cell, place in here:
        output, index = outputs[cell.variant], at[place]
        if output is not None:
            tensors = (batch.inputs[index], batch.targets[index], baseline[index], output[index])
            drawn[cell.variant, place] = _pictures(task, *tensors)
    return drawn


def _pictures(task: Task, given: Tensor, truth: Tensor, baseline: Tensor, variant: Tensor) -> dict[str, str]:
    own = given.detach().cpu().float().numpy()
    images = {
        name: tensor.detach().cpu().float().numpy()
        for name, tensor in (("truth", truth), ("baseline", baseline), ("variant", variant))
    }
    if task.metrics[0].compares == "classes":
        cut = 0.5 if task.spec.output == "probability" else 0.0
        masks = {name: image if name == "truth" else _classes(image, cut) for name, image in images.items()}
        ids = {name: mask.reshape(mask.shape[-2:]).astype(int) for name, mask in masks.items()}
        again = len(_PALETTE) - 1
        colours = np.array(_PALETTE, np.uint8)
        drawn = {name: colours[np.where(of <= 0, 0, (of - 1) % again + 1)] for name, of in ids.items()}
    else:
        drawn = {name: _image(image, images["truth"]) for name, image in images.items()}
    return {"input": _png(_image(own, own)), **{name: _png(pixels) for name, pixels in drawn.items()}}


def _classes(scores: np.ndarray, cut: float) -> np.ndarray:
    """(C, H, W) → class ids (H, W), as the metric takes them."""
    scores = scores[None] if scores.ndim == 2 else scores
    return (scores[0] > cut).astype(int) if len(scores) == 1 else scores.argmax(axis=0)


def _image(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(C, H, W) or (H, W) → (H, W) or (H, W, 3) uint8, scaled by the least and the greatest value of `scale`; of
    other numbers of channels the first."""
    values, low, high = values[None] if values.ndim == 2 else values, float(scale.min()), float(scale.max())
    scaled = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    bytes_ = np.round(255 * np.nan_to_num(scaled)).astype(np.uint8)
    return bytes_.transpose(1, 2, 0) if len(bytes_) == 3 else bytes_[0]


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG")
    return PICTURE + base64.b64encode(out.getvalue()).decode()
