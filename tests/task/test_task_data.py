from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ckptswap.errors import DataError, UsageError
from ckptswap.task.callables import load_callable
from ckptswap.task.data import Batch, Data, load_data
from ckptswap.task.order import permutation
from ckptswap.task.spec import TaskSpec
from ckptswap.task.threads import pinned_threads

OWN = """
import threading
import numpy as np, torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

x = torch.arange(14.).view(7, 1, 1, 2)
y = (x[:, 0] > 5).long()

def plain(): return TensorDataset(x, y)
def listed(): return [(a.numpy(), b.numpy(), f"g{at // 3}") for at, (a, b) in enumerate(zip(x, y))]
def alone(): return [a for a in x]
def loader(size=3): return DataLoader(TensorDataset(x, y), batch_size=size)
def grouped():
    for at in range(0, 7, 3): yield x[at:at + 3], y[at:at + 3], [n // 2 for n in range(at, min(at + 3, 7))]
def tensor_groups():
    for inputs, targets, groups in grouped(): yield inputs, targets, torch.tensor(groups)
def weighted(): return [(x[at], y[at], torch.ones(2), at // 2) for at in range(7)]
def named(): return [{"image": x[at], "labels": y[at], "who": torch.tensor(at // 2)} for at in range(7)]
def weight(): return [(x[0], y[0], torch.full((2,), 4.5))]
def share(): return [(x[0], y[0], 0.5)]
def sizes(): return [(torch.zeros(1, n, n), torch.zeros(n, n).long()) for n in (2, 2, 2, 4, 4, 2)]
def dtypes(): return [(x[0].double() if at % 2 else x[0], y[0]) for at in range(5)]
def stream():
    class Stream(IterableDataset):
        def __iter__(self): return iter([(x[0], y[0])])
    return Stream()
def empty(): return []
def none(): return None
def number(): return [3]
def triple_and_more(): return [(x[0], y[0], 0, 0)]
def target_missing(): return [(x[0],)]
def text(): return [("a", y[0])]
def half_grouped(): return [(x[0], y[0]), (x[1], y[1], 1)]
def list_group(): return [(x[0], y[0], [1])]
def uneven(): yield x[:3], y[:2]
def uneven_groups(): yield x[:3], y[:3], [1]
def one_group(): yield x[:3], y[:3], 1
def broken():
    yield x[:3], y[:3]
    raise OSError("disk gone")
class Broken:
    def __len__(self): return 3
    def __getitem__(self, at): raise ValueError(f"no sample {at}")
class Restless:
    def __len__(self): return 5
    def __getitem__(self, at): return torch.rand(1, 4, 4), torch.zeros(4, 4).long()
class Seen:
    def __init__(self):
        self.asked, self.buffer = [], torch.zeros(1, 2, 2)
        seen.append(self)
    def __len__(self): return 20
    def __getitem__(self, at):
        self.asked.append((at, threading.current_thread().name, torch.get_num_threads()))
        return self.buffer.fill_(at), torch.full((2, 2), at)
seen = []
def last_seen(): return seen[-1]
class Flaky:
    asked = 0
    def __len__(self): return 6
    def __getitem__(self, at):
        Flaky.asked += 1
        if Flaky.asked > 6 and at == 3: raise OSError("disk gone")
        return torch.zeros(1, 2, 2), torch.zeros(2, 2)
class Readonly:
    def __len__(self): return 1
    def __getitem__(self, at):
        image = np.zeros((1, 2, 2), np.float32); image.flags.writeable = False
        return image, image[0]
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


def read(spec: TaskSpec) -> tuple[list[int], Tensor, Tensor, list[int]]:
    """Sizes of the batches; inputs, targets and groups in the data's order."""
    data = load_data(spec)
    batches = list(data.batches())
    rows = {
        place: (x, y)
        for batch in batches
        for place, x, y in zip(batch.places.tolist(), batch.inputs, batch.targets, strict=True)
    }
    assert sorted(rows) == list(range(data.samples)) == list(range(len(data.groups)))
    assert data.sizes == tuple(len(batch) for batch in batches) == tuple(len(batch.inputs) for batch in batches)
    inputs, targets = (torch.cat([rows[at][side].flatten() for at in sorted(rows)]) for side in (0, 1))
    return list(data.sizes), inputs, targets, data.groups.tolist()


def readers() -> int:
    return sum(each.name.startswith("ckptswap-read") for each in threading.enumerate())


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(*each) for each in ((a.inputs, b.inputs), (a.targets, b.targets))) and np.array_equal(
        a.places, b.places
    )


def test_samples_are_walked_in_the_order_of_the_permutation(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:plain", batch_size=3))
    assert [batch.places.tolist() for batch in data.batches()] == [
        permutation(7)[at : at + 3].tolist() for at in (0, 3, 6)
    ]
    sizes, inputs, targets, groups = read(TaskSpec(data=f"{own}:plain", batch_size=3))
    assert sizes == [3, 3, 1]
    assert inputs.tolist() == list(range(14))
    assert targets.tolist() == [0] * 6 + [1] * 8
    assert groups == data.units.tolist() == list(range(7))


def test_a_group_a_sample(own: str) -> None:
    assert read(TaskSpec(data=f"{own}:listed", batch_size=4))[3] == [0, 0, 0, 1, 1, 1, 2]
    assert read(TaskSpec(data=f"{own}:grouped"))[3] == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(("name", "part"), [("tensor_groups", "2"), ("named", "who"), ("listed", "2")])
def test_the_part_that_is_named_is_the_group(own: str, name: str, part: str) -> None:
    spec = TaskSpec(data=f"{own}:{name}").merge({"group": part, "target": "input"})
    data = load_data(spec)
    by_name = [0, 0, 0, 1, 1, 1, 2] if name == "listed" else [0, 0, 1, 1, 2, 2, 3]
    assert data.groups.tolist() == by_name
    assert data.names == (("image",) if name == "named" else ())


def test_other_parts_than_the_group_still_count(own: str) -> None:
    with pytest.raises(DataError, match=r"sample 0 of .* is a tuple of 3: it must be"):
        load_data(TaskSpec(data=f"{own}:weighted", group="3"))


def test_batches_are_taken_as_they_come(own: str) -> None:
    for batch_size in (1, 8):
        sizes, inputs, _, groups = read(
            TaskSpec(data=f"{own}:loader", data_args={"size": 5}, batch_size=batch_size)
        )
        assert (sorted(sizes), groups) == ([2, 5], list(range(7)))
        assert inputs.tolist() == list(range(14))


def test_ready_made_batches_are_reordered_as_they_are(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:loader", data_args={"size": 2}))
    made = [[0, 1], [2, 3], [4, 5], [6]]
    assert [batch.places.tolist() for batch in data.batches()] == [made[at] for at in permutation(4)]
    number = {int(batch.places[0]): at for at, batch in data.numbered()}
    assert data.units.tolist() == [number[at - at % 2] for at in range(7)]


@pytest.mark.parametrize(("name", "sizes"), [("plain", [3, 1]), ("loader", [3, 1]), ("grouped", [3, 1])])
def test_the_limit_counts_samples(own: str, name: str, sizes: list[int]) -> None:
    found = read(TaskSpec(data=f"{own}:{name}", batch_size=3, limit="first:4"))
    assert sorted(found[0], reverse=True) == sizes
    assert found[1].tolist() == list(range(8))


def test_a_batch_has_one_shape(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:sizes", batch_size=2))
    batches = list(data.batches())
    assert sorted(data.sizes) == [2, 2, 2]
    assert {tuple(batch.inputs.shape[1:]) for batch in batches} == {(1, 2, 2), (1, 4, 4)}
    assert data.shapes == {
        shape: min(at for at, batch in enumerate(batches) if batch.inputs.shape[1:] == shape)
        for shape in ((1, 2, 2), (1, 4, 4))
    }
    assert [data.units[each].tolist() for each in data.places] == [[at, at] for at in range(3)]


def test_a_batch_has_one_dtype(own: str) -> None:
    assert sorted(read(TaskSpec(data=f"{own}:dtypes", batch_size=4))[0]) == [2, 3]


@pytest.mark.parametrize("name", ["sizes", "dtypes", "plain", "loader"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_first_batch_of_each_form(own: str, name: str, size: int) -> None:
    """A form is what a model could be captured for: number of samples, shape and dtype."""
    data = load_data(TaskSpec(data=f"{own}:{name}", batch_size=size))
    firsts: dict[tuple[object, ...], int] = {}
    for number, batch in data.numbered():
        firsts.setdefault((len(batch), tuple(batch.inputs.shape[1:]), batch.inputs.dtype), number)
    assert data.forms == firsts


def test_the_input_as_target(own: str) -> None:
    for name in ("alone", "plain", "loader"):
        data = load_data(TaskSpec(data=f"{own}:{name}", target="input", batch_size=3))
        assert all(batch.inputs is batch.targets for batch in data.batches())


def test_arrays_that_cannot_be_written_to_are_copied(own: str) -> None:
    assert read(TaskSpec(data=f"{own}:Readonly"))[0] == [1]


@pytest.mark.parametrize("name", ["plain", "loader"])
def test_normalize_is_one_value_or_one_a_channel(own: str, name: str) -> None:
    spec = TaskSpec(data=f"{own}:{name}", normalize="1/2")
    assert read(spec)[1].tolist() == [(each - 1) / 2 for each in range(14)]


def test_normalize_by_channel(write_folder) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 1] = 255
    root = write_folder({"images/a.png": image})
    spec = TaskSpec(data=str(root), target="input", normalize="0.5,0,1/0.5,2,1")
    (batch,) = load_data(spec).batches()
    assert batch.inputs[0, :, 0, 0].tolist() == [-1, 0.5, -1]
    with pytest.raises(UsageError, match="of 3 channels"):
        load_data(TaskSpec(data=str(root), target="input", normalize="1,2/3,4"))


@pytest.mark.parametrize("text", ["0.5", "a/b", "1/0", "1/-1", "nan/1", "1/2/3", "/", "1,/2"])
def test_normalize_that_makes_no_sense(own: str, text: str) -> None:
    with pytest.raises(UsageError, match="--normalize"):
        load_data(TaskSpec(data=f"{own}:plain", normalize=text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "is None: give a Dataset"),
        ("empty", "holds no samples"),
        ("stream", "put it in a DataLoader"),
        ("number", r"sample 0 of .* is a int: it must be \(input, target\)"),
        ("triple_and_more", "is a tuple of 4"),
        ("target_missing", "is a tuple of 1"),
        ("text", "holds a str"),
        ("half_grouped", "only some samples"),
        ("list_group", "third part of sample 0 of .* is a list of 1, .* say group=2"),
        ("uneven", r"has \[3, 2\] inputs, targets and groups"),
        ("uneven_groups", r"has \[3, 3, 1\]"),
        ("one_group", "third part of batch 0 of .* is 1, and"),
        ("tensor_groups", r"third part of batch 0 of .* is a Tensor of the shape \[3\], .* say group=2"),
        ("weight", r"third part of sample 0 of .* is a Tensor of the shape \[2\]"),
        ("share", "third part of sample 0 of .* is 0.5"),
        ("broken", r"own\.py:\d+: OSError: disk gone"),
        ("Broken", r"sample 0 of .*own\.py:\d+: ValueError: no sample 0"),
        ("plian", "did you mean 'plain'"),
    ],
)
def test_callables_that_give_no_data(own: str, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(TaskSpec(data=f"{own}:{name}", batch_size=4))


def test_data_that_is_not_named_or_not_there(scans: Path, own: str, tmp_path: Path) -> None:
    for spec, message in [
        (TaskSpec(), "pass --data"),
        (TaskSpec(data=str(tmp_path / "none")), "there is no folder"),
        (TaskSpec(data="lab:mnist"), "no data 'mnist'"),
        (TaskSpec(data="lab:mni", data_args={"prat": 1}), "unexpected keyword argument 'prat'"),
    ]:
        with pytest.raises(DataError, match=message):
            load_data(spec)
    with pytest.raises(UsageError, match="a folder takes no --data-args"):
        load_data(TaskSpec(data=str(scans), data_args={"part": "test"}))
    with pytest.raises(DataError, match=r"sample 0 of .* is a tuple of 2, and has no part '\(a\)': --group is"):
        load_data(TaskSpec(data=f"{own}:plain", group="(a)"))


def test_a_folder_with_groups(scans: Path) -> None:
    data = load_data(TaskSpec(data=str(scans), group=r"(s\d+)_", batch_size=2))
    assert data.groups.tolist() == [0, 0, 1, 1, 1]
    assert [(tuple(batch.inputs.shape), tuple(batch.targets.shape)) for batch in data.batches()] == [
        ((2, 1, 16, 16), (2, 16, 16)),
        ((2, 1, 16, 16), (2, 16, 16)),
        ((1, 1, 16, 16), (1, 16, 16)),
    ]
    assert {int(each) for batch in data.batches() for each in batch.targets.unique()} == {0, 1}


def test_the_fingerprint_is_the_content(scans: Path, own: str) -> None:
    spec = TaskSpec(data=str(scans))
    prints = [
        load_data(spec).fingerprint(),
        load_data(TaskSpec(data=str(scans), limit=4)).fingerprint(),
        load_data(TaskSpec(data=str(scans), normalize="0/2")).fingerprint(),
        load_data(TaskSpec(data=str(scans), target="input")).fingerprint(),
        load_data(TaskSpec(data=str(scans), group=r"(s\d+)_")).fingerprint(),
        load_data(TaskSpec(data=f"{own}:plain")).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert load_data(spec).fingerprint() == prints[0]
    mask = scans / "masks" / "s1_a.png"
    mask.write_bytes((scans / "masks" / "s1_b.png").read_bytes())
    assert load_data(spec).fingerprint() != prints[0]


def test_the_fingerprint_does_not_know_batches(scans: Path, own: str) -> None:
    for name, args in ((str(scans), {}), (f"{own}:plain", {}), (f"{own}:listed", {})):
        spec = TaskSpec(data=name, data_args=args)
        assert len({load_data(spec.merge({"batch-size": size})).fingerprint() for size in (1, 2, 5, 9)}) == 1
    made = [load_data(TaskSpec(data=f"{own}:loader", data_args={"size": size})) for size in (1, 3, 7)]
    assert len({data.fingerprint() for data in made}) == 1
    assert len({data.composition() for data in made}) == 3
    assert load_data(TaskSpec(data=f"{own}:plain")).composition() is None
    assert made[0].fingerprint() == load_data(TaskSpec(data=f"{own}:plain")).fingerprint()


SAMPLE = 16 * 16 * (4 + 8)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_what_does_not_fit_in_memory_is_read_again(scans: Path, kept: int, threads: int) -> None:
    spec = TaskSpec(data=str(scans), batch_size=2, threads=threads)
    whole = load_data(spec)
    partly = load_data(spec, memory=SAMPLE * kept + 10)
    assert len(partly._kept) + sum(len(batch) for batch in partly._whole.values()) == kept
    assert partly.fingerprint() == whole.fingerprint()
    for _ in range(2):
        for a, b in zip(whole.batches(), partly.batches(), strict=True):
            assert same(a, b)
    assert readers() == 0


@pytest.mark.parametrize("memory", [0, SAMPLE * 3, SAMPLE * 9])
@pytest.mark.parametrize("wanted", [[], [1], [0, 2], {2, 1, 0}, range(1, 99), None])
def test_batches_by_number(scans: Path, wanted, memory: int) -> None:
    spec = TaskSpec(data=str(scans), batch_size=2)
    every = dict(enumerate(load_data(spec).batches()))
    found = dict(load_data(spec, memory=memory).numbered(wanted))
    assert list(found) == [number for number in every if wanted is None or number in wanted]
    assert all(same(batch, every[number]) for number, batch in found.items())


def opened(own: str, memory: int, **spec: int) -> tuple[Data, list[tuple[int, str, int]]]:
    """The data `Seen`, and which sample was asked for in which thread, which computes with how many."""
    data = load_data(TaskSpec(data=f"{own}:Seen", **spec), memory=memory)
    return data, load_callable(f"{own}:last_seen", DataError)().asked


def test_what_is_kept_is_put_together_once(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:plain", batch_size=3))
    assert data._kept == {}
    assert [batch.inputs.data_ptr() for batch in data.batches()] == [
        batch.inputs.data_ptr() for batch in data.batches()
    ]


def test_only_the_wanted_batches_are_decoded(own: str) -> None:
    data, asked = opened(own, memory=0, batch_size=4)
    assert [at for at, _, _ in asked] == list(range(20))
    asked.clear()
    list(data.numbered({1, 3}))
    assert sorted(at for at, _, _ in asked) == sorted([*data.places[1], *data.places[3]])
    asked.clear()
    list(data.numbered(()))
    assert asked == []


def test_somebodys_dataset_is_used_by_one_thread_at_a_time(own: str) -> None:
    """It hands out one buffer; each sample must be copied before the next is asked for."""
    data, asked = opened(own, memory=50 * 8, batch_size=3, threads=4)
    assert {name for _, name, _ in asked} == {threading.current_thread().name}
    asked.clear()
    for batch in data.batches():
        assert batch.inputs[:, 0, 0, 0].tolist() == batch.targets[:, 0, 0].tolist() == batch.places.tolist()
    assert len({name for _, name, _ in asked}) == 1


def test_every_reading_computes_with_the_tasks_threads(own: str) -> None:
    data, asked = opened(own, memory=0, threads=3)
    with pinned_threads(3):
        list(data.batches())
    assert {threads for _, _, threads in asked} == {3}


def test_whoever_stops_early_leaves_no_thread(scans: Path) -> None:
    data = load_data(TaskSpec(data=str(scans), batch_size=1, threads=4), memory=0)
    for _ in data.batches():
        assert readers() > 0
        break
    assert readers() == 0


def test_what_goes_wrong_in_a_second_reading_names_the_sample(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:Flaky", batch_size=2), memory=0)
    with pytest.raises(DataError, match=r"sample 3 of .*own\.py:\d+: OSError: disk gone"):
        list(data.batches())
    assert readers() == 0


def test_a_file_that_is_broken_meanwhile_is_named(scans: Path) -> None:
    data = load_data(TaskSpec(data=str(scans), batch_size=2, threads=4), memory=0)
    (scans / "images" / "s2_b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"s2_b\.png cannot be read"):
        list(data.batches())
    assert readers() == 0


def test_data_that_changes_between_readings_is_refused(own: str) -> None:
    data = load_data(TaskSpec(data=f"{own}:Restless", batch_size=2), memory=0)
    with pytest.raises(DataError, match=r"sample \d of .* has other values when it is read again"):
        list(data.batches())
    with pytest.raises(DataError, match=r"yields more than 9\.31e-09 GB: return a Dataset"):
        load_data(TaskSpec(data=f"{own}:grouped"), memory=10)


def test_progress_counts_samples(own: str) -> None:
    calls: list[tuple[int, int | None]] = []
    load_data(TaskSpec(data=f"{own}:plain", batch_size=3), lambda done, total: calls.append((done, total)))
    assert calls == [(done, 7) for done in range(1, 8)]
    calls.clear()
    load_data(TaskSpec(data=f"{own}:loader"), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (7, None)
