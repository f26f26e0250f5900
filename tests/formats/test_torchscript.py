"""TorchScript: the state dict that `torch.jit.load` gives, without loading; what is outside it; grafts; lies."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from format_samples import text, write, zip_bytes

import ckptswap as cs
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.transplant import left_behind, plan_transplant
from ckptswap.verify import verify

torch = pytest.importorskip("torch")


class Part(torch.nn.Module):
    """A tied layer, a buffer that torch.save would leave out, and tensors in all kinds of attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)
        self.register_buffer("mask", torch.arange(3.0), persistent=False)
        self.scales = [torch.full((1,), 2.0), torch.full((2,), 3.0)]
        self.empty = torch.zeros(0)
        self.sizes = [1, 2]
        self.table = {"k": torch.ones(3, dtype=torch.bfloat16)}

    def forward(self, x):
        return (
            self.linear(x + self.mask) * self.scales[0] + self.table["k"].sum() + self.sizes[0] + self.empty.sum()
        )


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Part()
        self.norm = torch.nn.BatchNorm1d(4)
        self.twin = self.part.linear

    def forward(self, x):
        return self.norm(self.part(x)) + self.twin(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `scripted.pt`, `traced.pt`, `frozen.pt`, `lite.ptl` and `quantized.pt`."""
    folder = tmp_path_factory.mktemp("script")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net().eval()
        scripted = torch.jit.script(net)
        scripted.save(folder / "scripted.pt")
        torch.jit.trace(net, torch.ones(2, 3)).save(folder / "traced.pt")
        torch.jit.freeze(scripted).save(folder / "frozen.pt")
        scripted._save_for_lite_interpreter(str(folder / "lite.ptl"))
        quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(3, 4)))
        torch.jit.script(quantized).save(folder / "quantized.pt")
    return folder


def loaded(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path).state_dict()


def same(found: Checkpoint, wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found.read(name).tobytes() == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes(), name


@pytest.mark.parametrize("name", ["scripted.pt", "traced.pt", "lite.ptl"])
def test_the_state_dict_is_what_loading_gives(name: str, files: Path) -> None:
    with open_checkpoint(files / name) as found:
        same(found, loaded(files / name))
        assert (found.format, found.unread) == ("torchscript", {})
        assert any("of which nothing was built or run" in note for note in found.notes)
        assert found.ties.group("twin.weight") == ("part.linear.weight", "twin.weight")
    assert verify(files / name).ok


def test_what_is_outside_the_state_dict_has_keys(files: Path) -> None:
    """Attributes, but those without elements; and the tensors of code, which in a frozen module are all."""
    with open_checkpoint(f"{files}/scripted.pt::attributes.part.scales") as scales:
        assert {name: scales.read(name).tolist() for name in scales} == {"0": [2.0], "1": [3.0, 3.0]}
    with open_checkpoint(files / "scripted.pt") as found:
        assert any("::attributes" in note for note in found.notes)
    with open_checkpoint(files / "frozen.pt") as frozen, open_checkpoint(files / "scripted.pt") as whole:
        assert frozen.key is None
        assert whole.read("part.linear.weight").tobytes() in {frozen.read(name).tobytes() for name in frozen}
        assert any("under 'CONSTANTS'" in note for note in frozen.notes)


def test_packed_weights_are_values_that_are_not_read(files: Path) -> None:
    found = cs.diff(files / "quantized.pt", files / "quantized.pt")
    assert found.differs
    assert [str(row.name) for row in found.rows if row.status == "unread"]


def test_a_graft_is_torchscript_and_runs(files: Path, tmp_path: Path) -> None:
    """All members stay as they are but the bytes of what is taken; the code goes along."""
    donor = {name: torch.full_like(tensor, 7) for name, tensor in loaded(files / "traced.pt").items()}
    torch.save(donor, tmp_path / "donor.pt")
    recipient, out = files / "traced.pt", tmp_path / "out.pt"
    cs.transplant(tmp_path / "donor.pt", recipient, out, only="*.bias")
    new, old = loaded(out), loaded(recipient)
    assert {
        name: float(tensor.flatten()[0]) for name, tensor in new.items() if name.endswith("bias")
    } == dict.fromkeys(("part.linear.bias", "norm.bias", "twin.bias"), 7.0)
    assert all(torch.equal(new[name], old[name]) for name in new if not name.endswith("bias"))
    with zipfile.ZipFile(recipient) as before, zipfile.ZipFile(out) as after:
        kept = {info.filename for info in before.infolist()} & {info.filename for info in after.infolist()}
        assert kept == set(before.namelist())
        changed = {name for name in kept if before.read(name) != after.read(name)}
        assert all("/data/" in name for name in changed)
        assert len(changed) == 2


def test_its_code_is_not_lost_in_silence(files: Path, tmp_path: Path) -> None:
    with open_checkpoint(files / "lite.ptl") as recipient:
        plan = plan_transplant(recipient, recipient)
        [told] = left_behind(plan, tmp_path / "a.safetensors")
        assert told.endswith("not written: its code, attributes (-o FILE.ptl keeps it)")
        assert left_behind(plan, tmp_path / "a.ptl") == []
        with pytest.raises(UsageError, match="read and not written"):
            cs.save(recipient, tmp_path / "b.jit")


SELF = b"c__torch__\nNet\n)\x81"
CODE = b"class Net(Module):\n  __parameters__ = []\n  __buffers__ = []\n"


def script(**members: bytes) -> bytes:
    """An archive of an empty module, but for these members."""
    plain = {"data.pkl": b"\x80\x02" + SELF + b"}b.", "code/__torch__.py": CODE, "constants.pkl": b"\x80\x02)."}
    return zip_bytes({f"a/{name}": raw for name, raw in (plain | members).items()})


def nested(depth: int) -> bytes:
    """A module that holds a module that holds …"""
    return b"\x80\x02" + (SELF + b"}" + text("m")) * depth + b"N" + b"sb" * depth + b"."


HOSTILE = {
    "no module": (script(**{"data.pkl": b"\x80\x02}."}), "which is not a module"),
    "a class without code": (script(**{"code/__torch__.py": b""}), "does not declare __torch__.Net"),
    "code that climbs": (script(**{"data.pkl": b"\x80\x02c__torch__.../x\nNet\n)\x81}b."}), "does not declare"),
    "code that names no module": (script(**{"code/__torch__.py": b"class Net:\n  pass\n"}), "does not declare"),
    "a NamedTuple": (script(**{"code/__torch__.py": b"class Net(NamedTuple):\n  a : int\n"}), "not a module"),
    "no constants": (script(**{"constants.pkl": b""}), "damaged pickle"),
    "asks for a shell": (script(**{"data.pkl": b"\x80\x02cposix\nsystem\n."}), "posix.system"),
    "a shell in its constants": (script(**{"constants.pkl": b"\x80\x02cposix\nsystem\n."}), "posix.system"),
    "modules without end": (script(**{"data.pkl": nested(200)}), "too many modules"),
    "a module in itself": (
        script(**{"data.pkl": b"\x80\x02" + SELF + b"q\x00}" + text("m") + b"h\x00sb."}), "too many modules"),
    "no tensors": (script(), "no tensors"),
    "cut short": (script()[:-30], "zip archive"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str, tmp_path: Path) -> None:
    content, fault = HOSTILE[case]
    with pytest.raises(FormatError, match=fault):
        open_checkpoint(write(tmp_path / "a.pt", content))


def test_only_code_may_be_packed_and_not_much_of_it(tmp_path: Path) -> None:
    for packed, code, fault in (
        ("data.pkl", CODE, "compressed, which"),
        ("code/", b"#" * (65 << 20), "code takes"),
    ):
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            for name, raw in (("data.pkl", b"}."), ("code/__torch__.py", code), ("constants.pkl", b").")):
                way = zipfile.ZIP_DEFLATED if name.startswith(packed) else zipfile.ZIP_STORED
                archive.writestr(f"a/{name}", raw, way)
        with pytest.raises(FormatError, match=fault):
            open_checkpoint(tmp_path / "a.pt")
