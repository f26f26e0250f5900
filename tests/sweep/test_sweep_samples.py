"""The samples that are hit worst: which they are, and what their pictures show, against plain code."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sweeping import plan_json, prepare, write_plan_json
from sweeping import ran as run

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.samples import SCHEMA, Hit, Samples
from ckptswap.sweep.run_folder.sealed import sealed, unsealed
from ckptswap.sweep.runner import Sweep
from ckptswap.task import TaskSpec

Save = Callable[..., Checkpoint]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def proposal(save: Save, spec: TaskSpec, folder: Path) -> Sweep:
    return prepare(save(1, "Skip"), save(0, "Skip"), spec, run_dir=folder)


def kept(planned: Sweep, **how: Any) -> tuple[Hit, ...]:
    """The hits that a sweep keeps."""
    run(planned, samples=True, **how)
    samples = planned.folder.load_samples()
    assert samples is not None
    return samples.hits


@pytest.fixture
def ran(save: Save, skip: TaskSpec, tmp_path: Path) -> Sweep:
    planned = proposal(save, replace(skip, metrics=("iou",)), tmp_path / "run")
    run(planned)
    return planned


def pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def outputs(ran: Sweep, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, targets and outputs of the user's model with this state, by nobody's code but torch's."""
    namespace: dict = {}
    path = str(ran.task.spec.model).partition(":")[0]
    exec(Path(path).read_text(), namespace)
    model = namespace["Skip"]().eval()
    model.load_state_dict(tensors)
    samples = namespace["data"]()
    images, masks = torch.stack([each[0] for each in samples]), torch.stack([each[1] for each in samples])
    with torch.no_grad():
        return images, masks, model(images)


def iou(output: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    guess = output[:, 0] > 0
    both, any_ = (guess & (truth > 0)).sum((1, 2)), (guess | (truth > 0)).sum((1, 2))
    return np.where(any_ > 0, both.double() / any_.clip(min=1), 1.0)


def test_they_are_the_worst_samples_of_the_worst_cells_and_look_as_the_model_says(ran: Sweep) -> None:
    hits = kept(ran)
    donor, recipient = (torch.load(each.path) for each in (ran.donors[0], ran.recipient))
    images, masks, baseline = outputs(ran, recipient)
    drops = {
        cell.names: iou(baseline, masks)
        - iou(outputs(ran, recipient | {n: donor[n] for n in cell.names})[2], masks)
        for cell in ran.plan.cells
        if cell.status == "measured"
    }
    worst = sorted(drops, key=lambda names: -drops[names].mean())[:3]
    cells = {(cell.layer, cell.kind): cell.names for cell in ran.plan.cells}
    assert list(dict.fromkeys(cells[hit.layer, hit.kind] for hit in hits)) == worst
    for hit in hits:
        names = cells[hit.layer, hit.kind]
        assert hit.drop == pytest.approx(drops[names][hit.sample], abs=1e-6)
        assert hit.drop == pytest.approx(hit.baseline - hit.variant, abs=1e-12)
        assert (drops[names] > hit.drop + 1e-9).sum() < 3
        variant = outputs(ran, recipient | {n: donor[n] for n in names})[2]
        for name, mask in (
            ("truth", masks[hit.sample] > 0),
            ("baseline", baseline[hit.sample, 0] > 0),
            ("variant", variant[hit.sample, 0] > 0),
        ):
            assert ((pixels(hit.pictures[name]).sum(-1) > 0) == mask.numpy()).all()
        image = images[hit.sample, 0].numpy()
        shown = 255 * (image - image.min()) / (image.max() - image.min())
        assert np.abs(pixels(hit.pictures["input"]) - shown).max() <= 0.51


def test_what_was_kept_is_read_again(ran: Sweep) -> None:
    assert ran.folder.load_samples() is None
    hits = kept(ran)
    assert len(hits) == 9
    assert ran.folder.load_samples() == Samples("iou", hits)


def test_a_score_that_compares_no_pictures_keeps_none(save: Save, skip: TaskSpec, tmp_path: Path) -> None:
    planned = proposal(save, skip, tmp_path / "run")  # its first metric is the user's own
    assert kept(planned) == ()


def test_an_image_is_compared_as_an_image(save: Save, skip: TaskSpec, tmp_path: Path) -> None:
    found = proposal(save, replace(skip, metrics=("mse",), target="input"), tmp_path / "run")
    hits = kept(found)
    assert hits
    assert (pixels(hits[0].pictures["truth"]) == pixels(hits[0].pictures["input"])).all()


FEW = """
import torch
from torch import nn


class Few(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def images():
    return torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def numbers():
    return [(image, image.mean() * torch.arange(3.0)) for image in images()]


def classes():
    return [(image, torch.tensor(at % 3)) for at, image in enumerate(images())]
"""


@pytest.mark.parametrize(("data", "metric"), [("numbers", "mse"), ("classes", "accuracy")])
def test_an_output_that_is_no_image_gives_none(tmp_path: Path, data: str, metric: str) -> None:
    own, namespace = tmp_path / "few.py", dict[str, Any]()
    own.write_text(FEW)
    exec(FEW, namespace)
    torch.manual_seed(0)
    donor, recipient = (
        Checkpoint.from_arrays({k: v.numpy() for k, v in namespace["Few"]().state_dict().items()})
        for _ in range(2)
    )
    spec = TaskSpec(model=f"{own}:Few", data=f"{own}:{data}", metrics=(metric,), batch_size=6, threads=1)
    found = prepare(donor, recipient, spec, run_dir=tmp_path / "run")
    assert kept(found, tolerance=0.01) == ()
    assert found.folder.load_samples() == Samples(metric, ())


@pytest.mark.parametrize("changed", ["key", "plan"])
def test_samples_of_another_run_in_the_folder_are_none(ran: Sweep, changed: str) -> None:
    kept(ran)
    content = plan_json(ran.folder.path)
    content[changed] |= {"key": {"other": "another"}, "plan": {"alphas": [0.5]}}[changed]
    write_plan_json(ran.folder.path, content)
    assert ran.folder.load_samples() is None


def test_a_fresh_run_begins_without_samples(ran: Sweep) -> None:
    kept(ran)
    ran.folder.begin(ran.folder.read_plan(), fresh=True)
    assert not ran.folder.samples_path.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample", '1"><img src=x onerror=alert(1)>'),
        ("sample", -1),
        ("donor", True),
        ("donor", 1),
        ("drop", "x"),
        ("drop", 10**4000),
        ("baseline", None),
        ("layer", 3),
        ("kind", ["conv.bias"]),
        ("pictures", {"input": 3}),
        ("pictures", []),
    ],
)
def test_a_value_of_another_type_is_damage(ran: Sweep, field: str, value: object) -> None:
    kept(ran)
    path = ran.folder.samples_path
    rows = unsealed(path.read_bytes())
    rows["rows"][0][field] = value
    path.write_text(sealed(rows))
    with pytest.raises(RunError, match="is damaged"):
        ran.folder.load_samples()


@pytest.mark.parametrize("text", ["", "[]", "{}", *(
    sealed({"schema": SCHEMA, "key": "", "metric": "iou", "rows": []} | changed)
    for changed in [{"rows": [{"x": 1}]}, {"rows": 3}, {"rows": [3]}, {"metric": None}]
), sealed({"schema": SCHEMA, "metric": "iou", "rows": []})])  # fmt: skip
def test_a_damaged_file_is_a_sentence(tmp_path: Path, text: str) -> None:
    RunFolder(tmp_path).samples_path.write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        RunFolder(tmp_path).load_samples()


def test_a_file_of_an_older_form_is_as_none(ran: Sweep) -> None:
    kept(ran)
    path = ran.folder.samples_path
    path.write_text(sealed(unsealed(path.read_bytes()) | {"schema": "ckptswap.samples/4"}))
    assert ran.folder.load_samples() is None


def test_a_file_that_names_something_else_is_refused(ran: Sweep) -> None:
    kept(ran)
    path = ran.folder.samples_path
    rows = unsealed(path.read_bytes())
    rows["rows"][0]["pictures"]["input"] = "https://example.org/x.png"
    path.write_text(sealed(rows))
    with pytest.raises(RunError, match="something else than pictures"):
        ran.folder.load_samples()
