"""The engine against a plain loop that loads, builds and runs a whole model for every variant, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import odd_models
import pytest
import torch
from plain import bits, inputs_of, plain_outputs, raw
from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.scoring import interpreter
from ckptswap.scoring import replay as replay_module
from ckptswap.scoring.costs import TIMED
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.full import FullScorer, ModelOutput
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.replay import SHAPES
from ckptswap.scoring.schedule import Instruction
from ckptswap.scoring.scorer import ShortcutFailed
from ckptswap.scoring.swap import same_bits
from ckptswap.scoring.variant import Variant
from ckptswap.selection import Selection
from ckptswap.sweep.plan import make_plan, variant_id
from ckptswap.task import Task, TaskSpec, load_task

ODD = Path(odd_models.__file__)
WAYS = [("layer", "kind"), ("kind",), ("layer",), ("tensor",)]
TWO_SIZES = {"sizes": [12, 16]}


def odd(spec: TaskSpec, name: str, **changes: Any) -> TaskSpec:
    """The task of one of the odd models."""
    return replace(spec, model=f"{ODD}:{name}", **changes)


def every(donor: Checkpoint, recipient: Checkpoint) -> list[Variant]:
    """Every part of every way of splitting, the donor itself, and the recipient as a variant that changes
    nothing.
    """
    more = [Variant(variant_id(names), names) for names in (tuple(recipient), ())]
    return [*make_plan(donor, recipient, Selection(), WAYS).variants(), *more]


def some(*names: str) -> list[Variant]:
    """A variant for each tensor."""
    return [Variant(name, (name,)) for name in names]


def walked(task: Task, engine: FullScorer, variants: Sequence[Variant]) -> list[dict[Variant, ModelOutput]]:
    """What becomes of each variant on each batch."""
    found = []
    with task.pinned():
        for number, inputs in enumerate(inputs_of(task)):
            outcomes = list(engine.outputs(number, inputs, variants))
            assert sorted(each.variant for each in outcomes) == sorted(variants), "one outcome a variant"
            found.append({each.variant: each for each in outcomes})
    return found


def hold(
    task: Task, donor: Checkpoint, recipient: Checkpoint, batches: list[dict[Variant, ModelOutput]], **how: Any
) -> None:
    """Every output has the bits of the plain loop's."""
    for variant in batches[0]:
        expected = plain_outputs(task, donor, recipient, variant.names, **how)
        for outcomes, output in zip(batches, expected, strict=True):
            found = outcomes[variant].output
            assert found is not None, outcomes[variant].failed
            assert raw(found) == raw(output), variant.names


def swept(
    spec: TaskSpec, donor: Checkpoint, recipient: Checkpoint, variants: Sequence[Variant] | None = None, **how: Any
) -> tuple[FullScorer, list[dict[Variant, ModelOutput]]]:
    """Load the task, walk it, and hold all outputs and the model's own tensors against what they must be."""
    pick = how.pop("pick", None)
    task = load_task(spec, recipient)
    engine = scorer_of(task, donor, recipient, **how)
    before = bits(task.model)
    batches = walked(task, engine, every(donor, recipient) if variants is None else variants)
    hold(task, donor, recipient, batches, **({"pick": pick} if pick else {}))
    assert bits(task.model) == before, "the model holds the recipient again"
    return engine, batches


def ways(batches: list[dict[Variant, ModelOutput]]) -> set[str]:
    return {outcome.engine for outcomes in batches for outcome in outcomes.values()}


# The same bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "way"), [("auto", "replay"), ("replay", "replay"), ("full", "full")])
def test_every_variant_equals_the_plain_loop_bit_for_bit(skip: TaskSpec, save, how, way) -> None:
    """Twenty samples in batches of six: the last batch, of two, is captured for itself."""
    engine, batches = swept(skip, save(1, "Skip"), save(0, "Skip"), how=how)
    assert ways(batches) == {way}
    assert engine.notes == []
    assert len({raw(outcome.output) for outcome in batches[0].values()}) > 20, "the variants differ"


def test_images_of_two_sizes_are_captured_once_each(skip: TaskSpec, save, monkeypatch) -> None:
    captured: list[tuple[int, ...]] = []
    capture = replay_module.capture
    monkeypatch.setattr(
        replay_module, "capture", lambda model, x, pick: captured.append(tuple(x.shape)) or capture(model, x, pick)
    )
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(replace(skip, data_args=TWO_SIZES, batch_size=3), recipient)
    engine = scorer_of(task, donor, recipient, "replay")
    batches = walked(task, engine, every(donor, recipient))
    hold(task, donor, recipient, batches)
    assert ways(batches) == {"replay"}
    assert sorted(captured) == [(1, 1, 12, 12), (1, 1, 16, 16), (3, 1, 12, 12), (3, 1, 16, 16)]


@pytest.mark.parametrize("memory", [1, 3_000, 30_000])
def test_memory_changes_the_groups_and_no_bit(skip: TaskSpec, save, memory: int) -> None:
    engine, batches = swept(skip, save(1, "Skip"), save(0, "Skip"), how="replay", memory=memory)
    assert ways(batches) == {"replay"}
    assert engine.notes == []
    groups = [len(each.latest) for each in engine._replays.values() if each is not None]
    assert all(number > 1 for number in groups) is (memory < 30_000)


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize("names", [("one.weight",), ("two.weight",), ("one.weight", "two.weight"), ("one.bias",)])
def test_tied_tensors_are_one_whichever_name_is_taken(own: Path, spec: TaskSpec, save, names, how) -> None:
    tied = replace(spec, model=f"{own}:Tied")
    _, batches = swept(tied, save(1, "Tied"), save(0, "Tied"), [Variant("v", names)], how=how)
    assert ways(batches) == {"full" if how == "full" else "replay"}


@pytest.mark.parametrize("name", ["Plain", "Shared", "Twice", "NaNs", "Grows", "Wide", "Few", "Listed"])
def test_what_is_replayed_whatever_the_model_does(spec: TaskSpec, save, name: str) -> None:
    sizes = odd(spec, name, data_args=TWO_SIZES)
    engine, batches = swept(sizes, save(1, name), save(0, name), how="replay")
    assert ways(batches) == {"replay"}
    assert engine.notes == []


def test_a_buffer_that_is_made_at_the_first_run(spec: TaskSpec, save) -> None:
    args = {"buffer": True}
    sizes = odd(spec, "Grows", model_args=args, data_args=TWO_SIZES)
    _, batches = swept(sizes, save(1, "Grows", args), save(0, "Grows", args), how="replay")
    assert ways(batches) == {"replay"}


@pytest.mark.parametrize(
    ("kind", "key", "pick"),
    [
        ("dict", "mask", lambda found: found["mask"]),
        ("tuple", "1", lambda found: found[1]),
        ("named", "mask", lambda found: found.mask),
        ("named", "0", lambda found: found.mask),
    ],
)
def test_the_output_that_the_task_picks(spec: TaskSpec, save, kind: str, key: str, pick: Callable) -> None:
    gives = odd(spec, "Gives", model_args={"kind": kind}, output_key=key)
    donor, recipient = (save(seed, "Gives", {"kind": kind}) for seed in (1, 0))
    engine, batches = swept(gives, donor, recipient, how="replay", pick=pick)
    assert ways(batches) == {"replay"}
    assert engine.unread() == {
        "extra.weight", "extra.bias", "norm.num_batches_tracked"
    }  # fmt: skip


@pytest.mark.parametrize("how", ["auto", "full"])
def test_a_pair_of_another_dtype_than_the_model(skip: TaskSpec, save, how: str) -> None:
    donor, recipient = (save(seed, "Skip", dtype=torch.float64) for seed in (1, 0))
    swept(skip, donor, recipient, how=how)


def test_a_donor_of_another_dtype_than_the_model(skip: TaskSpec, save) -> None:
    swept(skip, save(1, "Skip", dtype=torch.bfloat16), save(0, "Skip"), some("stem.weight", "norm.running_var"))


@pytest.mark.parametrize("how", ["auto", "full"])
def test_nan_and_infinite_tensors(skip: TaskSpec, save, how: str) -> None:
    """Outputs that are not finite are outputs; their bits, too, are those of a full pass."""
    odd_nans = torch.tensor([0x7FC12345, 0x7FC54321, 0x7F812345, 0], dtype=torch.int32).view(torch.float32)
    donor = save(1, "Skip", head__bias=torch.tensor([torch.nan]), norm__bias=torch.full((4,), torch.inf))
    recipient = save(0, "Skip", unused__bias=odd_nans[:2])
    swept(skip, donor, recipient, some("head.bias", "norm.bias", "unused.bias"), how=how)


# Run in full ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Looks", r"what it does depends on the values of stem\.weight, stem\.bias, norm\.weight and 5 more"),
        ("Raises", r"what it does depends on the values of head\.weight"),
        ("Learns", r"what it does depends on the values of stem\.weight, stem\.bias, norm\.weight and 5 more"),
        ("Views", "tensors of the model are views of each other"),
        ("Reaches", "it reaches a parameter by another way than its module"),
        ("WritesInput", r"aten\.copy_\.default changes a tensor in place"),
        ("Renamed", "it saves tensors that its modules do not hold"),
    ],
)
def test_what_cannot_be_captured_is_run_in_full_and_said_once(spec: TaskSpec, save, name, reason) -> None:
    task = odd(spec, name)
    donor, recipient = save(1, name), save(0, name)
    engine, batches = swept(task, donor, recipient)
    assert ways(batches) == {"full"}
    [note] = engine.notes
    assert re.fullmatch(rf"the model cannot be captured \({reason}\): every variant is run in full", note)
    assert engine.unread() == frozenset()
    with pytest.raises(ModelError, match=r"cannot be captured.*use --engine full, or auto"):
        walked(engine.task, scorer_of(engine.task, donor, recipient, "replay"), some("head.bias"))


def test_more_shapes_than_are_captured(skip: TaskSpec, save) -> None:
    many = replace(skip, data_args={"sizes": list(range(4, 4 + SHAPES + 2))}, batch_size=2)
    engine, batches = swept(many, save(1, "Skip"), save(0, "Skip"), some("stem.weight", "head.bias"))
    assert [ways([each]) for each in batches] == [{"replay"}] * SHAPES + [{"full"}] * 2
    assert engine.notes == [f"inputs of more than {SHAPES} shapes: the rest is run in full"]


def test_many_shapes_are_captured_where_that_pays(skip: TaskSpec, save) -> None:
    """Not for a few variants of a tiny network; for one shape, or where it is asked for, nothing is weighed."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    many = load_task(replace(skip, data_args={"sizes": [4, 5, 6]}, batch_size=2), recipient)
    for variants, how, expected in [(3, "auto", "full"), (10**9, "auto", "auto"), (3, "replay", "replay")]:
        engine = scorer_of(many, donor, recipient, how)
        engine.prefer_full(variants)
        assert engine.how == expected
        assert bool(engine.notes) == (expected == "full")
    one = scorer_of(load_task(skip, recipient), donor, recipient)
    one.prefer_full(1)
    assert one.how == "auto"


def test_a_batch_of_each_shape_is_timed(skip: TaskSpec, save) -> None:
    """A pass over all samples is as many passes as there are, of their own size, captured or not."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    spec = replace(skip, data_args={"sizes": list(range(4, 4 + SHAPES + 2))}, batch_size=2)
    for how in ("auto", "full"):
        engine = scorer_of(load_task(spec, recipient), donor, recipient, how)
        timed: list[int] = []

        def seconds(batch, timed=timed) -> float:
            timed.append(batch.inputs.shape[-1])
            return float(batch.inputs.numel())

        engine._seconds = seconds
        cost = engine.cost(some("head.bias"))
        everything = sum(batch.inputs.numel() for batch in engine.task.data.batches())
        assert cost.whole_pass == pytest.approx(everything)
        assert len(set(timed)) == len(timed) == (SHAPES + 2 if how == "auto" else TIMED)
        assert cost.engine == ("replay" if how == "auto" else "full")


def test_a_variant_that_raises_is_failed_and_the_others_go_on(spec: TaskSpec, save) -> None:
    donor, recipient = save(1, "Raises", head__weight=torch.full((1, 3, 1, 1), torch.inf)), save(0, "Raises")
    task = load_task(odd(spec, "Raises"), recipient)
    before = bits(task.model)
    broken, fine = some("head.weight", "head.bias")
    batches = walked(task, scorer_of(task, donor, recipient), [broken, fine])
    assert all("RuntimeError: this weight is no number" in each[broken].failed for each in batches)
    assert all(each[broken].output is None and each[fine].failed is None for each in batches)
    hold(task, donor, recipient, [{fine: each[fine]} for each in batches])
    assert bits(task.model) == before


# One clear error ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "replay"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Drops", r"draws random numbers in eval mode \(.*\): switch dropout and its like off"),
        ("Rolls", "gives another output when it is run again on the same input: switch off"),
        ("Counts", "changes its own 'seen' when it runs"),
    ],
)
def test_models_that_no_engine_can_score(spec: TaskSpec, save, name: str, words: str, how) -> None:
    donor, recipient = save(1, name), save(0, name)
    task = load_task(odd(spec, name), recipient)
    before = bits(task.model)
    with pytest.raises(ModelError, match=words):
        scorer_of(task, donor, recipient, how).replay(task.first_inputs())
    if name != "Counts":
        assert bits(task.model) == before


@pytest.mark.parametrize(
    ("name", "how"), [("Drops", "full"), ("Rolls", "full"), ("Rolls", "auto"), ("Dice", "auto")]
)
def test_chance_is_refused_in_full_passes_too(spec: TaskSpec, save, name: str, how) -> None:
    donor, recipient = save(1, name), save(0, name)
    task = load_task(odd(spec, name), recipient)
    with pytest.raises(
        ModelError, match="gives another output when it is run again on the same input: switch off"
    ):
        scorer_of(task, donor, recipient, how).refuse_chance()


@pytest.mark.parametrize("how", ["auto", "replay", "full"])
def test_a_steady_model_is_not_refused(skip: TaskSpec, save, how) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip", head__bias=torch.tensor([torch.nan]))
    task = load_task(skip, recipient)
    scorer_of(task, donor, recipient, how).refuse_chance()


def test_an_output_that_is_none(spec: TaskSpec, save) -> None:
    args = {"kind": "none"}
    donor, recipient = (save(seed, "Gives", args) for seed in (1, 0))
    task = load_task(odd(spec, "Gives", model_args=args), recipient)
    with pytest.raises(ModelError, match="gives NoneType: it must give a tensor, a dict or a tuple"):
        scorer_of(task, donor, recipient).replay(task.first_inputs())


# A replay that goes wrong ---------------------------------------------------------------------------------------

Do = Callable[[Instruction, dict[int, Any]], None]


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Do], Do]], None]:
    """Puts something in the place of the function that does one operation of a replay."""
    return lambda wrap: monkeypatch.setattr(interpreter, "_do", wrap(interpreter._do))


def first_time(error: Exception, when: Callable[[Instruction], bool]) -> Callable[[Do], Do]:
    """An operation that raises once."""
    left = [error]

    def wrap(do: Do) -> Do:
        def failing(instruction: Instruction, values: dict[int, Any]) -> None:
            if left and when(instruction):
                raise left.pop()
            do(instruction, values)

        return failing

    return wrap


def is_written_over(instruction: Instruction) -> bool:
    return "relu_" in str(instruction.op)


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """From the moment on, those replayed variants that are chosen by their number have one other bit."""

    def spoil(chosen: Callable[[int], bool]) -> None:
        replayed, count = Replay._replayed, iter(range(10**9))

        def spoilt(*args: Any) -> Tensor:
            found = replayed(*args)
            if chosen(next(count)):
                found.view(-1).view(torch.uint8)[0] ^= 1
            return found

        monkeypatch.setattr(Replay, "_replayed", spoilt)

    return spoil


def test_a_graph_with_other_bits_is_given_up_at_once(skip: TaskSpec, save, doing) -> None:
    def wrap(do: Do) -> Do:
        def flipping(instruction: Instruction, values: dict[int, Any]) -> None:
            do(instruction, values)
            if is_written_over(instruction):
                values[instruction.gives] = values[instruction.gives] * (1 + 1e-6)

        return flipping

    doing(wrap)
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    engine, batches = swept(skip, donor, recipient)
    assert ways(batches) == {"full"}
    assert engine.notes == [
        "the captured model gives other bits than the model itself: every variant is run in full"
    ]
    with pytest.raises(ModelError, match="other bits than the model itself"):
        scorer_of(engine.task, donor, recipient, "replay").replay(engine.task.first_inputs())


@pytest.mark.parametrize("how", ["auto", "replay"])
@pytest.mark.parametrize("number", [0, 4])
def test_first_and_last_variant_of_a_new_shape_are_checked(skip: TaskSpec, save, wrong, number: int, how) -> None:
    """Whatever else was asked about that shape before."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    engine = scorer_of(task, donor, recipient, how)
    engine.unread()
    engine.cost(some("stem.bias"))
    names = ["stem.weight", "stem.bias", "norm.weight", "norm.bias", "inner.1.weight"]
    wrong(lambda at: at == number)
    with pytest.raises(
        ShortcutFailed, match=r"a replayed variant \(\w+(\.\w+)+\) has other bits than a full pass"
    ):
        walked(task, engine, some(*names))


def test_a_batch_for_nobody_is_no_first_batch(skip: TaskSpec, save, wrong, monkeypatch) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    engine = scorer_of(task, donor, recipient)
    with monkeypatch.context() as patched:
        patched.setattr(replay_module, "capture", None)
        assert list(engine.outputs(0, task.first_inputs(), [])) == []
    wrong(lambda at: True)
    with pytest.raises(ShortcutFailed):
        walked(task, engine, some("stem.weight"))


def test_one_in_a_hundred_is_checked_afterwards(skip: TaskSpec, save, monkeypatch) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    engine = scorer_of(task, donor, recipient)
    inputs = inputs_of(task)[0]
    variants = [Variant(str(at), ("head.bias",)) for at in range(50)]
    in_full = engine.in_full
    checked: list[int] = []

    def counting(inputs: Tensor, variants: Sequence[Variant]) -> Iterator[ModelOutput]:
        checked[-1] += 1
        return in_full(inputs, variants)

    monkeypatch.setattr(engine, "in_full", counting)
    for number in range(40):
        checked.append(0)
        list(engine.outputs(number, inputs, variants))
    assert checked[0] in (2, 3)
    assert set(checked[1:]) == {0, 1}
    assert 10 <= sum(checked[1:]) <= 29


NO_MEMORY = [
    torch.OutOfMemoryError("no"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_the_groups_and_goes_on(skip: TaskSpec, save, doing, error: Exception) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    engine = scorer_of(task, donor, recipient, "replay")
    for inputs in inputs_of(task):
        engine.replay(inputs)
    doing(first_time(error, is_written_over))
    before, variants = engine.memory, every(donor, recipient)
    batches = walked(task, engine, variants)
    hold(task, donor, recipient, batches)
    assert ways(batches) == {"replay"}
    assert engine.notes == ["memory ran out: variants are replayed in smaller groups"]
    assert engine.memory < before
    first, *_ = (each for each in engine._replays.values() if each is not None)
    assert len(first.latest) > 1


def test_out_of_memory_again_and_again_ends_in_full_passes(skip: TaskSpec, save, doing) -> None:
    """What was given before is not given twice."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    engine = scorer_of(task, donor, recipient)
    for inputs in inputs_of(task):
        engine.replay(inputs)

    def wrap(do: Do) -> Do:
        def full(instruction: Instruction, values: dict[int, Any]) -> None:
            if is_written_over(instruction):
                raise torch.OutOfMemoryError("no")
            do(instruction, values)

        return full

    doing(wrap)
    batches = walked(task, engine, every(donor, recipient))
    hold(task, donor, recipient, batches)
    assert "full" in ways(batches)
    assert len(engine.notes) == len(set(engine.notes)) <= 2


def test_any_other_error_in_a_replay_leaves_that_batch_to_full_passes(skip: TaskSpec, save, doing) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    engine = scorer_of(task, donor, recipient)
    for inputs in inputs_of(task):
        engine.replay(inputs)
    doing(first_time(RuntimeError("a kernel\nbroke"), is_written_over))
    batches = walked(task, engine, every(donor, recipient))
    hold(task, donor, recipient, batches)
    assert "full" in ways(batches[:1])
    assert ways(batches[1:]) == {"replay"}
    assert engine.notes == [
        "a replay failed (RuntimeError: a kernel): that batch's other variants are run in full"
    ]


# What the graph knows -------------------------------------------------------------------------------------------


def test_what_the_model_never_reads(skip: TaskSpec, save) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    counters = {"norm.num_batches_tracked", "inner.1.num_batches_tracked"}
    unread = scorer_of(task, donor, recipient).unread()
    assert unread == counters | {"unused.weight", "unused.bias"}
    assert scorer_of(task, donor, recipient, "full").unread() == frozenset()


def test_a_variant_that_changes_nothing_has_the_recipients_output(skip: TaskSpec, save) -> None:
    _, batches = swept(skip, save(1, "Skip"), save(0, "Skip"), [*some("unused.bias"), Variant("none", ())])
    for outcomes in batches:
        first, second = (each.output for each in outcomes.values())
        assert same_bits(first, second)
    assert ways(batches) == {"replay"}


def test_cost_of_a_replay_and_of_full_passes(skip: TaskSpec, save) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    task = load_task(skip, recipient)
    inputs, variants = task.first_inputs(), some("stem.weight", "inner.0.weight", "head.weight")
    engine = scorer_of(task, donor, recipient)
    found = engine.cost(variants)
    replay = engine.replay(inputs)
    assert replay is not None
    image = 12 * 12 * len(inputs)
    stem, inner, head = (2 * image * each for each in (9 * 4, 9 * 16, 4))
    whole = stem + inner + head
    assert replay.graph.flops == whole
    upstream = stem + inner  # one base pass as far as the last cone begins
    work = whole + upstream + whole + (inner + head) + head
    assert (found.engine, found.share) == ("replay", pytest.approx(work / (4 * whole)))
    assert 0 < found.seconds < 60
    assert found.peak is not None
    assert found.peak >= 4 * 4 * image
    full = scorer_of(task, donor, recipient, "full").cost(variants)
    assert (full.engine, full.share, full.peak) == ("full", 1.0, None)
    assert full.seconds > 0


def test_same_bits_is_about_bits() -> None:
    nan = torch.tensor([0x7FC00000], dtype=torch.int32)
    assert same_bits(nan.view(torch.float32), nan.clone().view(torch.float32))
    assert not same_bits(nan.view(torch.float32), (nan + 1).view(torch.float32))
    assert not same_bits(torch.zeros(2), torch.zeros(1, 2))
    assert not same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    assert not same_bits(torch.zeros(2, 3), torch.zeros(0))
    assert same_bits(torch.ones(2, 3).t(), torch.ones(3, 2))
