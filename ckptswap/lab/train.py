"""Training one network of a pair, for segmentation or for auto-encoding: seeded, and written with what it is.

The same spec, threads and machine give the same bits. Two tasks share an initialisation when the first saves it
(`save_init`) and the second starts from it (`init_from`).
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ckptswap.checkpoint import Checkpoint, refuse_damaged, sha256_of
from ckptswap.errors import DataError, ModelError, TaskError, UsageError, near
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.atomic import refuse_existing
from ckptswap.lab.trainspec import OPTIMIZERS, TrainSpec
from ckptswap.naming import ALIASES, classify
from ckptswap.sweep.run_folder.plain import refuse_odd
from ckptswap.task import TaskSpec
from ckptswap.task.data import load_data
from ckptswap.task.models.build import build_model
from ckptswap.task.threads import pinned_threads
from ckptswap.task.weights import to_torch
from ckptswap.version import __version__

TARGETS: Mapping[str, str] = {"segment": "masks", "reconstruct": "input"}
Progress = Callable[[int, float], None]  # called after each step with its number (from 1) and its loss


@dataclass(frozen=True)
class Training:
    """One training of a folder: what, and the initialisation there that it keeps or starts from."""

    name: str
    spec: TrainSpec
    save_init: str | None = None
    init_from: str | None = None

    @property
    def file(self) -> str:
        """The checkpoint's name."""
        return f"{self.name}.safetensors"

    def is_finished(self, folder: Path) -> bool:
        """Tell whether the checkpoint says that this training made it, from the initialisation beside it. Raises
        FileError for a file that is not a checkpoint, RunError for a link."""
        beside = self._beside(folder)
        files = (folder / self.file, *beside.values())
        for path in files:
            refuse_odd(path)
        if not all(path.exists() for path in files):
            return False
        with open_checkpoint(folder / self.file) as checkpoint:
            metadata = checkpoint.metadata
        if "init_from" in beside:
            with open_checkpoint(beside["init_from"]) as start:
                if metadata.get("ckptswap.init_from") != start.sha256():
                    return False
        return metadata.get("ckptswap.train") == recipe(self.spec)

    def run(self, folder: Path, progress: Progress) -> None:
        """Train, and replace what is there."""
        train(self.spec, folder / self.file, **self._beside(folder), progress=progress, force=True)

    def _beside(self, folder: Path) -> dict[str, Path]:
        starts = {"save_init": self.save_init, "init_from": self.init_from}
        return {role: folder / name for role, name in starts.items() if name}


@dataclass(frozen=True)
class TrainResult:
    """Where the checkpoint is, the loss at every step, and what `init_from` did not fill (kept as initialised)."""

    path: Path
    losses: tuple[float, ...]
    samples: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingSet:
    """All training samples in memory: images (N, C, H, W) float32, masks (N, H, W) int64 (None to reconstruct)."""

    images: Tensor
    masks: Tensor | None


def train(
    spec: TrainSpec,
    out: Path,
    *,
    init_from: Path | None = None,
    save_init: Path | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> TrainResult:
    """Train a network and write it to `out`, with model, task, seed and step in the metadata.

    `save_init` keeps the network as it was before the first step. Nothing is written unless whole. Raises
    UsageError for a spec without sense, ModelError and DataError for what cannot be built or read, FileError for a
    file in the way, TaskError when the loss stops being a number.
    """
    _check(spec)
    for path in filter(None, (out, save_init)):
        refuse_existing(path, force=force)
    samples = load_samples(spec)
    with pinned_threads(spec.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model_args = _completed(spec, samples)
        model = build_model(spec.model, model_args)
        kept, origin = _start_from(model, init_from)
        metadata = {
            "ckptswap.model": spec.model,
            "ckptswap.model_args": json.dumps(model_args, sort_keys=True),
            "ckptswap.task": json.dumps({"name": spec.task, "target": TARGETS[spec.task]}),
            "ckptswap.seed": str(spec.seed),
            "ckptswap.version": __version__,
            "ckptswap.train": recipe(spec),
            **({"ckptswap.init_from": origin} if origin else {}),
        }
        if save_init:
            _write(model, save_init, {**metadata, "ckptswap.step": "0"}, force)
            metadata.setdefault("ckptswap.init_from", sha256_of(save_init))
        losses = tuple(_descend(spec, model, samples, progress))
    _write(model, out, {**metadata, "ckptswap.step": str(spec.steps)}, force)
    return TrainResult(out, losses, len(samples.images), kept)


def _check(spec: TrainSpec) -> None:
    if spec.task not in TARGETS:
        remedy = near(spec.task, TARGETS) or "use segment or reconstruct"
        raise UsageError(f"there is no training task {spec.task!r}", remedy=remedy)
    if spec.model.partition(":")[0] not in ("lab", "smp"):
        raise ModelError(f"{spec.model!r} cannot be trained here", remedy="use lab:unet, lab:pspnet or smp:NAME")
    if spec.optimizer not in OPTIMIZERS:
        remedy = near(spec.optimizer, OPTIMIZERS) or f"use {' or '.join(OPTIMIZERS)}"
        raise UsageError(f"there is no optimizer {spec.optimizer!r}", remedy=remedy)
    for name in ("steps", "batch_size", "threads"):
        if getattr(spec, name) < 1:
            raise UsageError(f"{name} is {getattr(spec, name)}", remedy="it must be 1 or more")
    if not (math.isfinite(spec.lr) and spec.lr > 0):
        raise UsageError(f"lr is {spec.lr}", remedy="it must be a number above 0")
    if not 0 <= spec.seed < 2**63:
        raise UsageError(f"seed is {spec.seed}", remedy="it must lie between 0 and 2**63 - 1")


def load_samples(spec: TrainSpec) -> TrainingSet:
    """Every training sample, decoded once; of `lab:mni` the training part, unless `data_args` says otherwise.
    Raises DataError where samples are missing or differ in size."""
    args = {"part": "train", **spec.data_args} if spec.data == "lab:mni" else spec.data_args
    loaded = load_data(TaskSpec(data=spec.data, data_args=args, target=TARGETS[spec.task], ignore=spec.ignore))
    shapes = list(loaded.shapes)
    if len(shapes) > 1 or len(shapes[0]) != 3:
        sizes = " and ".join("×".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise DataError(f"{spec.data} has images of {sizes}", remedy="training needs (C, H, W), the same for all")
    batches = list(loaded.batches())
    order = np.argsort(np.concatenate(loaded.places))  # as the data has them, which the seed then shuffles
    masks = torch.cat([batch.targets for batch in batches])[order].long() if spec.task == "segment" else None
    return TrainingSet(torch.cat([batch.inputs for batch in batches])[order].float(), masks)


def _completed(spec: TrainSpec, samples: TrainingSet) -> dict[str, Any]:
    """The model's arguments, with the channels in and out that the data asks for where they are not given."""
    channels = samples.images.shape[1]
    if samples.masks is None:
        return {"in_channels": channels, "classes": channels, **spec.model_args}
    counted = [number for number in samples.masks.unique().tolist() if number != spec.ignore]
    if not counted or counted[0] < 0:
        raise DataError(f"{spec.data} has the classes {counted} in its masks", remedy="number them from 0")
    highest = counted[-1]
    args = {"in_channels": channels, "classes": 1 if highest <= 1 else highest + 1, **spec.model_args}
    if highest >= max(args["classes"], 2):
        remedy = f"set classes={highest + 1} in --model-args"
        raise DataError(f"{spec.data} has class {highest}, and the model {args['classes']}", remedy=remedy)
    return args


def _start_from(model: nn.Module, path: Path | None) -> tuple[tuple[str, ...], str]:
    """Copy what fits from a checkpoint; returns what does not, and the checkpoint's hash."""
    if path is None:
        return (), ""
    state, kept = model.state_dict(), []
    with open_checkpoint(path) as checkpoint, torch.no_grad():
        refuse_damaged(checkpoint)
        for name, tensor in state.items():
            if name in checkpoint and checkpoint[name].shape == tuple(tensor.shape):
                tensor.copy_(to_torch(checkpoint.read(name)))
            else:
                kept.append(name)
        if all(name in kept for name, _ in model.named_parameters()):
            remedy = "start from the same architecture"
            raise ModelError(f"{path} has no parameter that fits the model", remedy=remedy)
        return tuple(kept), checkpoint.sha256()


def _descend(
    spec: TrainSpec, model: nn.Module, samples: TrainingSet, progress: Progress | None
) -> Iterator[float]:
    """One step after another, the rate falling linearly to 0; yields the loss of each. With a constant rate the BN
    statistics lag behind the last large steps, and the baseline is not at rest."""
    model.requires_grad_(True).train()
    trained = _trained(spec, model)
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(trained, lr=spec.lr, momentum=0.9)
        if spec.optimizer == "sgd"
        else torch.optim.AdamW(trained, lr=spec.lr)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / spec.steps)
    batches = itertools.islice(batch_order(len(samples.images), spec.batch_size, spec.seed), spec.steps)
    for step, batch in enumerate(batches, start=1):
        images = samples.images[batch]
        masks = None if samples.masks is None else samples.masks[batch]
        loss = _loss(spec, _forward(spec, model, images), images, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        value = loss.item()
        if not math.isfinite(value):
            remedy = "lower --lr, or look for NaN in the images"
            raise TaskError(f"the loss is {value} at step {step}", remedy=remedy)
        if progress:
            progress(step, value)
        yield value


def batch_order(samples: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of sample numbers: one shuffled epoch after another, cut without regard to their ends.

    >>> order = batch_order(3, 2, seed=0)
    >>> sorted(next(order) + next(order) + next(order))
    [0, 0, 1, 1, 2, 2]
    """
    generator = torch.Generator().manual_seed(seed)
    epochs = (torch.randperm(samples, generator=generator).tolist() for _ in itertools.count())
    stream = itertools.chain.from_iterable(epochs)
    while True:
        yield list(itertools.islice(stream, batch_size))


def _trained(spec: TrainSpec, model: nn.Module) -> list[nn.Parameter]:
    """All parameters but the frozen ones. Raises `UsageError` for a kind that the model lacks, or that is all."""
    parameters = dict(model.named_parameters())
    places = classify({name: tuple(value.shape) for name, value in model.state_dict().items()})
    kinds = {name: places[name][1] for name in parameters}
    frozen: set[str] = set()
    for pattern in (pattern for kind in spec.freeze for pattern in ALIASES.get(kind, (kind,))):
        matching = {name for name, kind in kinds.items() if fnmatchcase(kind, pattern)}
        if not matching:
            remedy = near(pattern, kinds.values()) or f"it has {', '.join(sorted(set(kinds.values())))}"
            raise UsageError(f"{spec.model} trains no parameter of the kind {pattern!r}", remedy=remedy)
        frozen |= matching
    if len(frozen) == len(parameters):
        raise UsageError("--freeze leaves nothing to train", remedy="freeze fewer kinds")
    for name in frozen:
        parameters[name].requires_grad_(False)
    return [parameter for name, parameter in parameters.items() if name not in frozen]


def _forward(spec: TrainSpec, model: nn.Module, images: Tensor) -> Tensor:
    try:
        return model(images)
    except (RuntimeError, ValueError) as error:
        shape = "×".join(map(str, images.shape))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "see what sizes the model takes, and use --batch-size 2 or more"
        raise ModelError(f"{spec.model} cannot train on a batch of {shape} ({reason})", remedy=remedy) from error


def _loss(spec: TrainSpec, output: Tensor, images: Tensor, masks: Tensor | None) -> Tensor:
    if masks is not None and output.shape[1] > 1:
        return F.cross_entropy(output, masks, ignore_index=-1 if spec.ignore is None else spec.ignore)
    target = images if masks is None else masks[:, None].float()
    if output.shape != target.shape:
        raise ModelError(
            f"{spec.model} gives {list(output.shape)} where {list(target.shape)} is wanted",
            remedy="set classes in --model-args, or choose images whose sides divide by the model's strides",
        )
    if masks is None:
        return F.mse_loss(output, target)
    if spec.ignore is not None:
        output, target = output[target != spec.ignore], target[target != spec.ignore]
    return F.binary_cross_entropy_with_logits(output, target) + soft_dice_loss(output, target)


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 − soft Dice over the whole batch (Milletari et al. 2016, arXiv:1606.04797), smoothed by one pixel.

    >>> soft_dice_loss(torch.full((1, 1, 2, 2), 50.0), torch.ones(1, 1, 2, 2)).item()
    0.0
    """
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum() + 1
    return 1 - overlap / (probability.sum() + target.sum() + 1)


def recipe(spec: TrainSpec) -> str:
    """The spec as the metadata holds it under `ckptswap.train`, by which a finished training is known again."""
    return json.dumps(asdict(spec), sort_keys=True)


def _write(model: nn.Module, path: Path, metadata: Mapping[str, str], force: bool) -> None:
    arrays = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    write_checkpoint(Checkpoint.from_arrays(arrays, metadata=metadata), path, force=force)
