"""A scorer of a network that people have, and of a noisy copy of it; and its outputs held against full passes."""

from __future__ import annotations

from pathlib import Path

import networks_of_people as people
import torch
from plain import raw

from ckptswap.checkpoint import Checkpoint
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.replay import ReplayScorer
from ckptswap.scoring.variant import Variant
from ckptswap.task import Task, TaskSpec, load_task

FILE = Path(people.__file__)
KEYS = {"clip/eager": "logits_per_image", "clip/sdpa": "logits_per_image"}


def scorer_of_copies(name: str) -> tuple[Task, ReplayScorer]:
    """On three batches; of sentences the second is padded."""
    state = people.build(name).state_dict()
    places = {value.data_ptr(): value.clone() for value in state.values()}
    torch.manual_seed(1)
    for value in (value for value in places.values() if value.is_floating_point()):
        value += 0.1 * torch.rand_like(value)
    noisy = {key: places[value.data_ptr()] for key, value in state.items()}
    donor, recipient = Checkpoint.from_arrays(noisy, path="noisy"), Checkpoint.from_arrays(state, path="plain")
    spec = TaskSpec(
        model=f"{FILE}:build", model_args={"name": name}, data=f"{FILE}:samples", data_args={"network": name},
        metrics=(f"{FILE}:size",), batch_size=2, threads=1, output_key=KEYS.get(name),
    )  # fmt: skip
    task = load_task(spec, recipient)
    engine = scorer_of(task, donor, recipient)
    assert isinstance(engine, ReplayScorer)
    return task, engine


def replayed(task: Task, engine: ReplayScorer, most: int = 4) -> tuple[int, int]:
    """Hold some variants' outputs on every batch against full passes. How many were replayed, all with the same
    bits (an `AssertionError` where not), and how many different outputs there were."""
    names = [name for name in engine.swaps.state if not name.endswith("num_batches_tracked")]
    variants = [Variant(name, (name,)) for name in {*names[:: len(names) // most + 1], names[-1]}]
    count, outputs = 0, set()
    with task.pinned():
        for number, batch in enumerate(task.batches()):
            full = {result.variant: result.output for result in engine.in_full(batch.inputs, variants)}
            for result in engine.outputs(number, batch.inputs, variants):
                assert result.output is not None, result.failed
                assert raw(result.output) == raw(full[result.variant]), result.variant  # type: ignore[arg-type]
                count += result.engine == "replay"
                outputs.add(raw(result.output))
    return count, len(outputs)
