"""The engine against a plain loop that builds, loads and runs a whole model for every variant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError
from ckptswap.selection import Selection
from ckptswap.sweep.engine import FullEngine
from ckptswap.sweep.plan import make_plan, variant_id
from ckptswap.task import Task, TaskSpec, load_task

WAYS = [("layer", "kind"), ("kind",), ("layer",), ("tensor",)]


def own_namespace(own: Path) -> dict:
    namespace: dict = {}
    exec(own.read_text(), namespace)
    return namespace


def plain_loop(
    own: Path, donor: Checkpoint, recipient: Checkpoint, names: tuple[str, ...], model: str
) -> np.ndarray:
    """Per-sample errors (N,) of one variant: both files, copied tensors, `load_state_dict`, full forward."""
    namespace = own_namespace(own)
    theirs, ours = (torch.load(each.path, weights_only=True) for each in (donor, recipient))
    network = namespace[model]()
    network.load_state_dict({name: (theirs if name in names else ours)[name] for name in ours})
    network.eval()
    samples = namespace["data"]()
    scores = []
    with torch.no_grad():
        for start in range(0, len(samples), 6):
            batch = samples[start : start + 6]
            output = network(torch.stack([image for image, _, _ in batch]))
            scores.append(namespace["error"](output, torch.stack([mask for _, mask, _ in batch])))
    return torch.cat(scores).double().numpy()


def bits(task: Task) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in task.model.state_dict().items()}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_variant_equals_the_plain_loop_bit_for_bit(own: Path, spec: TaskSpec, save) -> None:
    donor, recipient = save(1), save(0)
    task = load_task(spec, recipient)
    variants = make_plan(donor, recipient, Selection(), WAYS).variants()
    engine = FullEngine(task, donor, recipient)
    before = bits(task)
    records = {record.variant: record for record in engine.run(variants)}
    assert bits(task) == before
    metric = task.metrics[0].name
    for names in variants:
        expected = plain_loop(own, donor, recipient, names, "Net")
        assert np.abs(records[variant_id(names)].statistics[metric][:, 0] - expected).max() == 0
    everything = tuple(recipient)
    assert np.array_equal(
        engine.reference().statistics[metric][:, 0], plain_loop(own, donor, recipient, everything, "Net")
    )
    assert np.array_equal(engine.baseline().statistics[metric][:, 0], plain_loop(own, donor, recipient, (), "Net"))
    assert bits(task) == before


@pytest.mark.parametrize("names", [("one.weight",), ("two.weight",), ("one.weight", "two.weight"), ("one.bias",)])
def test_tied_tensors_are_written_in_the_order_of_loading(own: Path, spec: TaskSpec, save, names) -> None:
    donor, recipient = save(1, "Tied"), save(0, "Tied")
    task = load_task(spec.merge({"model": f"{own}:Tied"}), recipient)
    before = bits(task)
    (record,) = FullEngine(task, donor, recipient).run([names])
    expected = plain_loop(own, donor, recipient, names, "Tied")
    assert np.array_equal(record.statistics[task.metrics[0].name][:, 0], expected)
    assert bits(task) == before


def test_a_variant_that_raises_is_failed_and_the_others_go_on(spec: TaskSpec, save) -> None:
    weight = torch.full((1, 4, 1, 1), torch.inf)
    donor, recipient = save(1, dec__3__weight=weight), save(0)
    task = load_task(spec, recipient)
    engine = FullEngine(task, donor, recipient)
    before = bits(task)
    broken, fine = engine.run([("dec.3.weight",), ("dec.3.bias",)])
    assert "this weight is no number" in broken.failed
    assert fine.failed is None
    assert bits(task) == before
    assert "this weight is no number" in engine.reference().failed


def test_a_variant_with_nan_outputs_is_failed_with_their_number(spec: TaskSpec, save) -> None:
    donor, recipient = save(1, dec__3__bias=torch.tensor([torch.nan])), save(0)
    task = load_task(spec, recipient)
    before = bits(task)
    (record,) = FullEngine(task, donor, recipient).run([("dec.3.bias",)])
    assert record.nonfinite == 20 * 12 * 12
    assert record.failed == "2880 of the model's outputs are NaN or infinite"
    assert bits(task) == before


def test_an_interrupt_puts_the_recipient_back(spec: TaskSpec, save, monkeypatch: pytest.MonkeyPatch) -> None:
    donor, recipient = save(1), save(0)
    task = load_task(spec, recipient)
    engine = FullEngine(task, donor, recipient)
    before = bits(task)

    def interrupt() -> None:
        assert bits(task) != before
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(engine.run([("dec.3.bias",)]))
    assert bits(task) == before


def test_nan_bits_of_the_recipient_are_kept(spec: TaskSpec, save) -> None:
    odd = torch.tensor([0x7FC12345, 0x7FC54321, 0x7F812345, 0], dtype=torch.int32).view(torch.float32)
    donor, recipient = save(1), save(0, unused__bias=odd[:2], enc__1__bias=odd)
    task = load_task(spec, recipient)
    engine = FullEngine(task, donor, recipient)
    before = bits(task)
    list(engine.run([("unused.bias",), ("enc.1.bias",)]))
    assert bits(task) == before


def test_a_donor_that_does_not_fit_has_no_score(spec: TaskSpec, save) -> None:
    donor, recipient = save(1, dec__3__weight=torch.zeros(2, 4, 1, 1)), save(0)
    task = load_task(spec, recipient)
    engine = FullEngine(task, donor, recipient)
    before = bits(task)
    assert "dec.3.weight" in engine.reference().failed
    assert bits(task) == before


def test_a_name_that_the_model_lacks(spec: TaskSpec, save) -> None:
    donor, recipient = save(1), save(0)
    engine = FullEngine(load_task(spec, recipient), donor, recipient)
    with pytest.raises(MismatchError, match="no tensor 'nothing'"):
        list(engine.run([("nothing",)]))
