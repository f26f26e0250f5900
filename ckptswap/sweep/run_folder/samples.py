"""The samples that a sweep's worst cells hit most: input, truth, baseline and variant as small pictures.

Kept beside the journal, so that a report can show them without model or data.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ckptswap.errors import RunError
from ckptswap.formats.atomic import write_text
from ckptswap.records import is_finite
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.run_folder.journal import SAMPLES, faults, key_of, read_plan
from ckptswap.sweep.run_folder.plain import read_plain
from ckptswap.sweep.run_folder.sealed import sealed, unsealed

if TYPE_CHECKING:
    from torch import Tensor

    from ckptswap.sweep.analysis import Run
    from ckptswap.sweep.runner import Sweep
    from ckptswap.task import Task
    from ckptswap.task.data import Batch

SCHEMA = "ckptswap.samples/3"
CELLS, EACH = 3, 3
"""How many of the worst cells are shown, and how many samples of each."""
SIDE = 192
"""Pixels of a picture's longer side at the most."""
OVERLAPS = ("iou", "dice", "accuracy")
PICTURE = "data:image/png;base64,"
_PALETTE = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
            (204, 121, 167))  # fmt: skip
"""Okabe and Ito's colours, class 0 black; the classes beyond begin again after black."""


@dataclass(frozen=True)
class Hit:
    """One sample under one cell's variant: scores by the run's first metric, pictures as data URIs."""

    layer: str | None
    kind: str | None
    donor: int
    sample: int
    baseline: float
    variant: float
    drop: float
    pictures: dict[str, str]


@dataclass(frozen=True)
class Samples:
    """What a run kept, and the metric by which these are the worst."""

    metric: str
    hits: tuple[Hit, ...]


def keep_samples(proposal: Sweep) -> tuple[Hit, ...]:
    """Draw them from a run that has its scores, and keep them in its folder; nothing where there are no images.

    Raises `RunError` where the folder cannot be written to, and what `Task.forward` raises.
    """
    hits = tuple(_hits(proposal))
    kept = {
        "schema": SCHEMA,
        "metric": proposal.task.metrics[0].name,
        "key": _key(read_plan(proposal.folder)),
        "rows": [asdict(hit) for hit in hits],
    }
    with faults(f"cannot write to {proposal.folder}"):
        write_text(proposal.folder / SAMPLES, sealed(kept))
    return hits


def _key(contents: dict[str, Any]) -> str:
    """What the samples were chosen under: the conditions of the scores, and which cells there are."""
    return key_of({name: contents.get(name) for name in ("key", "plan")})


def load_samples(run_dir: str | Path) -> Samples | None:
    """What was kept; None where a run kept none, or only of what it was before, or in another form.

    Raises `RunError` for a damaged file.
    """
    path = Path(run_dir) / SAMPLES
    if not os.path.lexists(path):
        return None
    try:
        found = unsealed(read_plain(path))
        if found["schema"] != SCHEMA:
            return None
        key, metric = found["key"], _checked(found["metric"], str)
        kept = Samples(metric, tuple(_hit(row) for row in found["rows"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error})", remedy="remove it, and run the same sweep again") from None
    if any(not uri.startswith(PICTURE) for hit in kept.hits for uri in hit.pictures.values()):
        raise RunError(f"{path} holds something else than pictures", remedy="remove it")
    contents = read_plan(path.parent)
    if key != _key(contents):
        return None
    if any(hit.donor >= len(contents["donors"]) for hit in kept.hits):
        raise RunError(f"{path} is damaged (it names a donor that the run does not have)", remedy="remove it")
    return kept


def _hit(row: dict[str, Any]) -> Hit:
    """One that is what it says. Raises TypeError or ValueError for another."""
    hit = Hit(**row)
    for name in (hit.layer, hit.kind):
        _checked(name, str, type(None))
    if not all(map(is_finite, (hit.baseline, hit.variant, hit.drop))):
        raise ValueError("a score is not a number")
    if min(_checked(hit.sample, int), _checked(hit.donor, int)) < 0:
        raise ValueError(f"sample {hit.sample} of donor {hit.donor}")
    for uri in _checked(hit.pictures, dict).values():
        _checked(uri, str)
    return hit


def _checked(value: Any, *types: type) -> Any:
    if type(value) not in types:  # True is no number
        raise TypeError(f"{value!r} is no {types[0].__name__}")
    return value


def _hits(proposal: Sweep) -> Iterator[Hit]:
    from ckptswap.sweep.analysis import read_run

    run = read_run(proposal.folder)
    if not _may_be_shown(proposal.task):
        return
    wanted = [(cell, *hit) for cell in _worst_cells(run) for hit in _worst_samples(run, cell)]
    numbers = {place: number for number, places in enumerate(run.scores.walk) for place in places.tolist()}
    drawn: dict[tuple[str, int], dict[str, str]] = {}
    task, batches = proposal.task, {numbers[place] for _, place, *_ in wanted}
    with task.pinned(), closing(task.data.numbered(batches)) as found:
        for number, batch in found:
            here = [(cell, place) for cell, place, *_ in wanted if numbers[place] == number]
            drawn |= _drawn(proposal, batch, here)
    for cell, place, baseline, variant, drop in wanted:
        if pictures := drawn.get((cell.variant, place)):
            yield Hit(cell.layer, cell.kind, cell.donor, place, baseline, variant, drop, pictures)


def _worst_cells(run: Run) -> list[Cell]:
    """Of the finest split, those with the largest drops on all samples, each variant once."""
    scored = [each for each in run.plan.cells if run.is_scored(each) and not _is_partly(run, each)]
    finest = max((sum(part is not None for part in (each.layer, each.kind)) for each in scored), default=0)
    cells = {
        each.variant: each
        for each in scored
        if sum(part is not None for part in (each.layer, each.kind)) == finest
    }
    return sorted(cells.values(), key=lambda each: -_drops(run, each).mean())[:CELLS]


def _is_partly(run: Run, cell: Cell) -> bool:
    return run.scores.done(cell.variant) < run.scores.samples


def _each(run: Run, variant: str) -> np.ndarray:
    """The score of each sample by itself (N,)."""
    return np.asarray(run.reduce(run.statistics(variant), np.ones(run.scores.samples)), float).reshape(-1)


def _drops(run: Run, cell: Cell) -> np.ndarray:
    sign = 1.0 if run.metric["direction"] == "max" else -1.0
    return sign * (_each(run, BASELINE) - _each(run, cell.variant))


def _worst_samples(run: Run, cell: Cell) -> list[tuple[int, float, float, float]]:
    """Those of finite scores: a PSNR may be infinite, and nothing says by how much another is worse."""
    drops, before, after = _drops(run, cell), _each(run, BASELINE), _each(run, cell.variant)
    drops = np.where(np.isfinite(drops), drops, 0.0)
    worst = [int(at) for at in np.argsort(-drops, kind="stable")[:EACH] if drops[at] > 0]
    return [(at, float(before[at]), float(after[at]), float(drops[at])) for at in worst]


# Pictures --------------------------------------------------------------------------------------------------------


def _may_be_shown(task: Task) -> bool:
    """Whether inputs are images and the score compares what may be pictures too."""
    return _metric(task) in (*OVERLAPS, "mse", "psnr") and task.first_inputs().dim() == 4


def _metric(task: Task) -> str:
    return task.metrics[0].name.partition(":")[0]


def _are_pictures(task: Task, output: Tensor, targets: Tensor) -> bool:
    """Whether a score compares masks or images of one size, not a few numbers a sample or one class of all."""
    if targets.dim() < 3 or targets.shape[-2:] != output.shape[-2:]:
        return False
    if _metric(task) in OVERLAPS:
        return output.dim() in (3, 4) and (targets.dim() == 3 or targets.shape[1] == 1)
    return output.dim() == 4


def _drawn(
    proposal: Sweep, batch: Batch, here: Sequence[tuple[Cell, int]]
) -> dict[tuple[str, int], dict[str, str]]:
    task, baseline = proposal.task, proposal.task.forward(batch.inputs)
    if not _are_pictures(task, baseline, batch.targets):
        return {}
    at = {place: index for index, place in enumerate(batch.places.tolist())}
    cells = {cell.variant: cell for cell, _ in here}
    variants = [Variant(cell.variant, cell.names, cell.donor) for cell in cells.values()]
    outcomes = {each.variant.id: each.output for each in proposal.runs_model.in_full(batch.inputs, variants)}
    found = {}
    for cell, place in here:
        output, index = outcomes[cell.variant], at[place]
        if output is not None:
            tensors = (batch.inputs[index], batch.targets[index], baseline[index], output[index])
            found[cell.variant, place] = _pictures(task, *tensors)
    return found


def _pictures(task: Task, given: Tensor, truth: Tensor, baseline: Tensor, variant: Tensor) -> dict[str, str]:
    if _metric(task) in OVERLAPS:
        probability = task.spec.output == "probability"
        masks = {"truth": _values(truth)} | {
            name: _classes(_values(each), probability)
            for name, each in (("baseline", baseline), ("variant", variant))
        }
        drawn = {name: _coloured(mask.reshape(mask.shape[-2:])) for name, mask in masks.items()}
    else:
        low, high = _range(_values(truth))
        images = {"truth": truth, "baseline": baseline, "variant": variant}
        drawn = {name: _image(_values(each), low, high) for name, each in images.items()}
    return {
        "input": _png(_image(_values(given), *_range(_values(given)))),
        **{k: _png(v) for k, v in drawn.items()},
    }


def _values(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _classes(scores: np.ndarray, probability: bool) -> np.ndarray:
    """(C, H, W) → class ids (H, W), as the metric takes them: one channel by a cut, several by the greatest."""
    if scores.ndim == 2:
        scores = scores[None]
    if len(scores) == 1:
        return (scores[0] > (0.5 if probability else 0.0)).astype(int)
    return scores.argmax(axis=0)


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _image(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(C, H, W) or (H, W) → (H, W) or (H, W, 3) uint8; of other numbers of channels the first."""
    values = values[None] if values.ndim == 2 else values
    scaled = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    bytes_ = np.round(255 * np.nan_to_num(scaled)).astype(np.uint8)
    return bytes_.transpose(1, 2, 0) if len(bytes_) == 3 else bytes_[0]


def _coloured(mask: np.ndarray) -> np.ndarray:
    """Class ids (H, W) → (H, W, 3) uint8."""
    ids = mask.astype(int)
    around = len(_PALETTE) - 1
    return np.array(_PALETTE, np.uint8)[np.where(ids <= 0, 0, (ids - 1) % around + 1)]


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG")
    return PICTURE + base64.b64encode(out.getvalue()).decode()
