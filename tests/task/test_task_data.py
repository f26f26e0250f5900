from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ckptswap.errors import DataError, UsageError
from ckptswap.task import data as data_module
from ckptswap.task.data import load_data
from ckptswap.task.spec import TaskSpec

OWN = """
import numpy as np, torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

x = torch.arange(14.).view(7, 1, 1, 2)
y = (x[:, 0] > 5).long()

def plain(): return TensorDataset(x, y)
def listed(): return [(a.numpy(), b.numpy(), f"g{at // 3}") for at, (a, b) in enumerate(zip(x, y))]
def alone(): return [a for a in x]
def loader(size=3): return DataLoader(TensorDataset(x, y), batch_size=size)
def grouped():
    for at in range(0, 7, 3): yield x[at:at + 3], y[at:at + 3], torch.arange(at, min(at + 3, 7)) // 2
def sizes(): return [(torch.zeros(1, n, n), torch.zeros(n, n).long()) for n in (2, 2, 2, 4, 4, 2)]
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
    data = load_data(spec)
    batches = list(data.batches())
    inputs = torch.cat([x.flatten() for x, _ in batches])
    targets = torch.cat([y.flatten() for _, y in batches])
    assert data.samples == sum(len(x) for x, _ in batches) == len(data.groups)
    return [len(x) for x, _ in batches], inputs, targets, data.groups.tolist()


def test_samples_are_put_in_batches_in_order(own: str) -> None:
    sizes, inputs, targets, groups = read(TaskSpec(data=f"{own}:plain", batch_size=3))
    assert sizes == [3, 3, 1]
    assert inputs.tolist() == list(range(14))
    assert targets.tolist() == [0] * 6 + [1] * 8
    assert groups == list(range(7))


def test_a_group_a_sample(own: str) -> None:
    assert read(TaskSpec(data=f"{own}:listed", batch_size=4))[3] == [0, 0, 0, 1, 1, 1, 2]
    assert read(TaskSpec(data=f"{own}:grouped"))[3] == [0, 0, 1, 1, 2, 2, 3]


def test_batches_are_taken_as_they_come(own: str) -> None:
    for batch_size in (1, 8):
        sizes, inputs, _, groups = read(
            TaskSpec(data=f"{own}:loader", data_args={"size": 5}, batch_size=batch_size)
        )
        assert (sizes, groups) == ([5, 2], list(range(7)))
        assert inputs.tolist() == list(range(14))


@pytest.mark.parametrize(("name", "sizes"), [("plain", [3, 1]), ("loader", [3, 1]), ("grouped", [3, 1])])
def test_the_limit_counts_samples(own: str, name: str, sizes: list[int]) -> None:
    found = read(TaskSpec(data=f"{own}:{name}", batch_size=3, limit=4))
    assert found[0] == sizes
    assert found[1].tolist() == list(range(8))


def test_a_batch_ends_where_the_shape_changes(own: str) -> None:
    assert read(TaskSpec(data=f"{own}:sizes", batch_size=2))[0] == [2, 1, 2, 1]


def test_the_input_as_target(own: str) -> None:
    for name in ("alone", "plain", "loader"):
        data = load_data(TaskSpec(data=f"{own}:{name}", target="input", batch_size=3))
        assert all(x is y for x, y in data.batches())


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
    ((inputs, targets),) = load_data(spec).batches()
    assert inputs[0, :, 0, 0].tolist() == [-1, 0.5, -1]
    assert targets is inputs
    with pytest.raises(UsageError, match="of 3 channels"):
        load_data(TaskSpec(data=str(root), target="input", normalize="1,2/3,4"))


@pytest.mark.parametrize("text", ["0.5", "a/b", "1/0", "1/-1", "nan/1", "1/2/3", "/", "1,/2"])
def test_normalize_that_makes_no_sense(own: str, text: str) -> None:
    with pytest.raises(UsageError, match="--normalize"):
        load_data(TaskSpec(data=f"{own}:plain", normalize=text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "is a NoneType"),
        ("empty", "holds no samples"),
        ("stream", "put it in a DataLoader"),
        ("number", r"sample 0 of .* is a int: it must be \(input, target\)"),
        ("triple_and_more", "is a tuple of 4"),
        ("target_missing", "is a tuple of 1"),
        ("text", "holds a str"),
        ("half_grouped", "only some samples"),
        ("list_group", r"has the group \[1\]"),
        ("uneven", r"has \[3, 2\] inputs, targets and groups"),
        ("uneven_groups", r"has \[3, 3, 1\]"),
        ("one_group", "has the groups 1"),
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
    with pytest.raises(UsageError, match="--group"):
        load_data(TaskSpec(data=f"{own}:plain", group="(a)"))


def test_a_folder_with_groups(scans: Path) -> None:
    data = load_data(TaskSpec(data=str(scans), group=r"(s\d+)_", batch_size=2))
    assert data.groups.tolist() == [0, 0, 1, 1, 1]
    assert [(tuple(x.shape), tuple(y.shape)) for x, y in data.batches()] == [
        ((2, 1, 16, 16), (2, 16, 16)),
        ((2, 1, 16, 16), (2, 16, 16)),
        ((1, 1, 16, 16), (1, 16, 16)),
    ]
    assert {int(each) for _, y in data.batches() for each in y.unique()} == {0, 1}


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


def test_what_does_not_fit_in_memory_is_read_again(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TaskSpec(data=str(scans), batch_size=2)
    whole = load_data(spec)
    monkeypatch.setattr(data_module, "MEMORY", 16 * 16 * (4 + 8) * 2 + 10)
    partly = load_data(spec)
    assert len(partly._kept) == 1
    assert partly.fingerprint() == whole.fingerprint()
    for _ in range(2):
        for (x, y), (x2, y2) in zip(whole.batches(), partly.batches(), strict=True):
            assert torch.equal(x, x2)
            assert torch.equal(y, y2)


def test_data_that_changes_between_readings_is_refused(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MEMORY", 0)
    data = load_data(TaskSpec(data=f"{own}:Restless", batch_size=2))
    with pytest.raises(DataError, match="other values when read again"):
        list(data.batches())
    with pytest.raises(DataError, match="return a Dataset"):
        load_data(TaskSpec(data=f"{own}:grouped"))


def test_progress_counts_samples(own: str) -> None:
    calls: list[tuple[int, int | None]] = []
    load_data(TaskSpec(data=f"{own}:plain", batch_size=3), lambda done, total: calls.append((done, total)))
    assert calls == [(3, 7), (6, 7), (7, 7)]
    calls.clear()
    load_data(TaskSpec(data=f"{own}:loader"), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (7, None)
