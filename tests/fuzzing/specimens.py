"""Sound files of every format, small, as the libraries write them that people use, and where to damage them."""

from __future__ import annotations

import io
import json
import pickle
import random
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack

import numpy as np
from mutations import Part, blocks, instructions, message, mutated, mutated_message, records, tokens

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import write_checkpoint
from ckptswap.formats.opening import open_in
from ckptswap.formats.peft import merged
from ckptswap.storage import MemoryFolder

STRANGER = "stranger_canary"
"""A module that specimens and words name, and that nobody may import."""
_ARRAYS = {
    "a.weight": np.arange(6, dtype="f4").reshape(2, 3),
    "a.bias": np.zeros(2, "f2"),
    "n.running_var": np.ones(3, "f8"),
    "n.num_batches_tracked": np.array(7),
    "flag": np.array([True, False]),
}
_OPCODES = [
    b"c__builtin__\neval\n", b"cposix\nsystem\n", f"c{STRANGER}\nBomb\n".encode(),
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n",
    b"cnumpy._core.multiarray\n_reconstruct\n", b"ccopyreg\n_reconstructor\n", b"c__builtin__\ngetattr\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n", b"X\x04\x00\x00\x00true", b"X\x01\x00\x00\x00a", b"R", b"b",
    b"\x81", b"\x92", b"o", b"i__main__\nNet\n", b"(", b"t", b"\x85", b"\x86", b"}", b"]", b")", b"u", b"s",
    b"a", b"e", b"0", b"1", b"2", b"Q", b"h\x00", b"h\x05", b"q\x00", b"\x94", b"N", b"\x88", b"K\xff",
    b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 9, b"\x8f", b"\x90", b"\x91", b"\x93", b"G" + bytes(8),
    b"I99999999999999999999\n", b"L-1L\n", b"F1e999\n", b"S'a'\n", b"Vx\n", b"\x82\x01", b"\x95" + bytes(8),
    b".", b"2\x862\x862\x862\x86", b"]2a", b"X\x10\x00\x00\x00hyper_parameters",
    b"X\x19\x00\x00\x00pytorch-lightning_version",
]  # fmt: skip
_JSON = [
    b'"F8_E4M3"', b'"F4"', b'"I64"', b'"__metadata__"', b'"data_offsets"', b"[]", b"{}", b"[0,0]", b"null",
    b"true", b"-1", b"1.5", b"9" * 30, b'"\\ud800"', b'"\\u0000"', b"NaN", b"[[[[[[[[", b"\x00", b'"../x"',
    b'"/etc/passwd"', b'"model.safetensors.index.json"',
]  # fmt: skip
_NPY = [
    b"'|O'", b"'>f4'", b"'<f4'", b"(2,)", b"(-1,)", b"()", b"(" * 90, b"True", b"[('a','<f4')]",
    b"__import__('os')", b"2**99", b"'<U9'", b"lambda:0", b"9" * 40,
]  # fmt: skip


@dataclass(frozen=True)
class Specimen:
    """A sound file, or folder of files (`opens` is None), in memory; `parts` are what of it is damaged."""

    format: str
    files: Mapping[str, bytes]
    opens: str | None
    parts: tuple[Part, ...]
    read: Callable[[Checkpoint], None] = field(default=lambda found: None)
    tree: list | None = None

    def damaged(self, draw: random.Random) -> dict[str, bytes]:
        """Its files, with one of its parts mutated."""
        if self.tree is not None and draw.random() < 0.5:
            raw = mutated_message(self.tree, draw)
            return {**self.files, self.opens: raw}  # type: ignore[dict-item]
        part, other = draw.choice(self.parts), draw.choice(self.parts)
        return {**self.files, **part.rebuilt(mutated(part, other.raw, draw))}

    def open(self, files: Mapping[str, bytes]) -> Checkpoint:
        return open_in(MemoryFolder(files, name="folder"), self.opens)


def made(folder: Path, formats: Collection[str]) -> dict[str, Specimen]:
    """The specimens of these formats, by format and number; `folder` is for what can be written to files alone."""
    with warnings.catch_warnings(action="ignore"):
        makers = [make for make, names in _MAKERS.items() if {*names} & {*formats}]
        every = [each for make in makers for each in make(folder) if each.format in formats]
    counts = Counter[str]()
    by_name = {}
    for each in every:
        by_name[f"{each.format}/{counts[each.format]}"] = each
        counts[each.format] += 1
    return by_name


def _plain(name: str, raw: bytes, units: Callable | None = None, words: list[bytes] | None = None) -> Part:
    return Part("whole", raw, lambda raw: {name: raw}, units, words or [])


def _safetensors(folder: Path) -> Iterator[Specimen]:
    raw = _written(folder, "a.safetensors")
    header = _header("a.safetensors", raw)
    yield Specimen(
        "safetensors", {"a.safetensors": raw}, "a.safetensors", (_plain("a.safetensors", raw), header, header)
    )


def _header(name: str, raw: bytes) -> Part:
    """The JSON of a file of safetensors, with its right length."""
    end = 8 + int.from_bytes(raw[:8], "little")
    return Part(
        "header", raw[8:end], lambda header: {name: pack("<Q", len(header)) + header + raw[end:]}, tokens, _JSON
    )


def _sharded(folder: Path) -> Iterator[Specimen]:
    write_checkpoint(Checkpoint.from_arrays(_ARRAYS), folder / "m.safetensors.index.json", shard_size=40)
    files = {path.name: path.read_bytes() for path in folder.glob("m*")}
    index = next(name for name in files if name.endswith(".json"))
    shard = next(name for name in files if not name.endswith(".json"))
    yield Specimen(
        "sharded", files, index, (_plain(index, files[index], tokens, _JSON), _header(shard, files[shard]))
    )
    config = json.dumps(
        {"architectures": ["Net"], "torch_dtype": "float32", "auto_map": {"AutoModel": "net.Net"}}
    ).encode()
    raw = _written(folder, "model.safetensors")
    yield Specimen(
        "save_pretrained folder",
        {"config.json": config, "model.safetensors": raw},
        None,
        (_plain("config.json", config, tokens, _JSON), _header("model.safetensors", raw)),
    )


def _npz(folder: Path) -> Iterator[Specimen]:
    for save, format in ((np.savez, "npz"), (np.savez_compressed, "npz, deflated")):
        save(out := io.BytesIO(), **_ARRAYS)
        whole = _plain("a.npz", out.getvalue(), records)
        array = _npy(_ARRAYS["a.weight"])

        def packed(raw: bytes) -> dict[str, bytes]:
            return {"a.npz": stored_zip({"a.npy": raw, "b.npy": _npy(np.ones(2))})}

        yield Specimen(format, {"a.npz": whole.raw}, "a.npz", (whole, Part("array", array, packed, tokens, _NPY)))


def _npy(array: np.ndarray) -> bytes:
    np.lib.format.write_array(out := io.BytesIO(), array)
    return out.getvalue()


def stored_zip(members: Mapping[str, bytes]) -> bytes:
    """An archive of members that are not packed, with their right checksums."""
    out, directory = bytearray(), bytearray()
    for name, raw in members.items():
        at, spelt = len(out), name.encode()
        common = pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(raw), len(raw), len(raw), len(spelt), 0)
        out += b"PK\x03\x04" + common + spelt + raw
        directory += b"PK\x01\x02\x14\x00" + common + pack("<HHHII", 0, 0, 0, 0, at) + spelt
    return bytes(
        out
        + directory
        + b"PK\x05\x06"
        + pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(out), 0)
    )


def _unzipped(raw: bytes) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _inner(name: str, raw: bytes, ending: str, units: Callable, words: list[bytes]) -> Part:
    """A member of an archive, damaged behind a right checksum."""
    members = _unzipped(raw)
    own = next(member for member in members if member.endswith(ending))
    return Part(ending, members[own], lambda part: {name: stored_zip({**members, own: part})}, units, words)


def _torch_contents() -> list[object]:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    tied = torch.ones(4)
    best = torch.optim.Adam(net.parameters())
    net(torch.zeros(1, 1, 2, 2)).sum().backward()
    best.step()
    lightning = {
        "pytorch-lightning_version": "2.0",
        "state_dict": net.state_dict(),
        "optimizer_states": [best.state_dict()],
        "hyper_parameters": {"lr": 0.1, "names": ["a", {"b": (1, 2)}]},
        "epoch": 3,
    }
    odd = {
        "w": tied,
        "tied": tied,
        "part": tied[1:],
        "turned": torch.ones(2, 3).T,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "sparse": torch.eye(3).to_sparse(),
        "int8": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "array": np.ones(2),
        "set": {1, 2},
        "path": Path("x"),
        "f8": torch.ones(3).to(torch.float8_e4m3fn),
    }
    return [net.state_dict(), lightning, odd, net]


def _torch(folder: Path) -> Iterator[Specimen]:
    import torch

    for content in _torch_contents():
        torch.save(content, out := io.BytesIO())
        raw = out.getvalue()
        inner = _inner("a.pt", raw, "/data.pkl", instructions, _OPCODES)
        yield Specimen("torch zip", {"a.pt": raw}, "a.pt", (_plain("a.pt", raw, records), inner, inner))
        torch.save(content, out := io.BytesIO(), _use_new_zipfile_serialization=False)
        raw = out.getvalue()
        yield Specimen("torch legacy", {"a.pt": raw}, "a.pt", (_plain("a.pt", raw, instructions, _OPCODES),))


def _pickles(folder: Path) -> Iterator[Specimen]:
    import torch

    contents = [
        _ARRAYS,
        {"model": {"w": torch.ones(2, 3)}, "scalar": np.float32(1), "old": np.arange(3, dtype=">f4")},
    ]
    for at, content in enumerate(contents * 2):
        raw = pickle.dumps(content, protocol=2 + at)
        yield Specimen("plain pickle", {"a.pkl": raw}, "a.pkl", (_plain("a.pkl", raw, instructions, _OPCODES),))


def _distributed(folder: Path) -> Iterator[Specimen]:
    import torch
    import torch.distributed.checkpoint as room

    content = {"model": {"w": torch.ones(3, 4), "b": torch.ones(3)}, "epoch": 4}
    room.save(content, checkpoint_id=folder / "d", no_dist=True)
    files = {path.name: path.read_bytes() for path in (folder / "d").iterdir()}
    parts = [_plain(".metadata", files[".metadata"], instructions, _OPCODES)]
    parts += [_plain("__0_0.distcp", files["__0_0.distcp"], records)]
    yield Specimen("distributed", files, None, (*parts, parts[0]))


def _gguf(folder: Path) -> Iterator[Specimen]:
    import gguf

    writer = gguf.GGUFWriter(folder / "a.gguf", "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", ""])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.0])
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 32), "f4"))
    packed = gguf.quants.quantize(np.ones((1, 32), "f4"), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("half", np.ones(3, "f2"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    raw = (folder / "a.gguf").read_bytes()
    yield Specimen("gguf", {"a.gguf": raw}, "a.gguf", (_plain("a.gguf", raw),))


def _hdf5(folder: Path) -> Iterator[Specimen]:
    import h5py

    raws = []
    for libver in ("earliest", "latest"):
        with h5py.File(out := io.BytesIO(), "w", libver=libver) as file:
            weights = file.create_group("model_weights" if libver == "latest" else "layers")
            weights.attrs["layer_names"] = [b"dense", b"conv"]
            weights["dense/kernel:0"] = np.ones((2, 3), "f4")
            weights["dense/vars/0"] = np.ones(2, "f4")
            weights.create_dataset(
                "conv/packed", data=np.arange(64.0), chunks=(16,), compression="gzip", shuffle=True
            )
            weights.create_dataset("conv/summed", data=np.arange(8), chunks=(4,), fletcher32=True)
            weights["conv/big"] = np.ones(2, ">f4")
            weights["conv/half"] = np.ones(2, "u2")
            weights["conv/half"].attrs["dtype"] = "bfloat16"
            weights["conv/text"] = "abc"
            weights["soft"] = h5py.SoftLink("/dense")
            weights["elsewhere"] = h5py.ExternalLink("other.h5", "w")
            file.attrs["keras_version"] = "3.0"
        raws.append(out.getvalue())
    for raw in raws:
        yield Specimen("hdf5", {"a.h5": raw}, "a.h5", (_plain("a.h5", raw, blocks),))
    about = json.dumps({"keras_version": "3.0", "module": STRANGER}).encode()
    config = json.dumps(
        {"module": STRANGER, "class_name": "Lambda", "config": {"function": {"code": "4wEAAA=="}}}
    ).encode()
    members = {"metadata.json": about, "config.json": config, "model.weights.h5": raws[0]}
    raw = stored_zip(members)
    parts = [_plain("a.keras", raw, records)]
    for own, units, words in (("metadata.json", tokens, _JSON), ("model.weights.h5", blocks, [])):
        parts.append(
            Part(
                own,
                members[own],
                lambda part, own=own: {"a.keras": stored_zip({**members, own: part})},
                units,
                words,
            )
        )
    yield Specimen("keras", {"a.keras": raw}, "a.keras", tuple(parts))


def _onnx(folder: Path) -> Iterator[Specimen]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    beside = TensorProto(name="beside", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "data"), ("offset", "4"), ("length", "8")):
        beside.external_data.add(key=key, value=value)
    held = [
        numpy_helper.from_array(np.ones((2, 3), "f4"), "w"),
        helper.make_tensor("i", 7, [3], [1, 2, 3]),
        helper.make_tensor("h", 10, [2], [1.0, 2.0]),
        helper.make_tensor("s", 8, [1], [b"text"]),
        beside,
    ]
    constant = helper.make_node("Constant", [], ["c"], value=held[0])
    graph = helper.make_graph(
        [helper.make_node("Add", ["w", "c"], ["o"]), constant],
        "g",
        [],
        [helper.make_tensor_value_info("o", 1, [2, 3])],
        initializer=held,
    )
    raw = helper.make_model(graph).SerializeToString()
    assert onnx.load_from_string(raw).graph.initializer
    tree = message(raw)
    assert tree is not None
    yield Specimen("onnx", {"a.onnx": raw, "data": bytes(16)}, "a.onnx", (_plain("a.onnx", raw),), tree=tree)


def _exported(folder: Path) -> Iterator[Specimen]:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 1, 2, 2),)), folder / "a.pt2")
    raw = (folder / "a.pt2").read_bytes()
    inner = _inner(
        "a.pt2",
        raw,
        "model_weights_config.json",
        tokens,
        [*_JSON, b'{"as_int":-1}', b'{"as_int":4611686018427387904}'],
    )
    yield Specimen("torch.export", {"a.pt2": raw}, "a.pt2", (_plain("a.pt2", raw, records), inner, inner))


def _scripted(folder: Path) -> Iterator[Specimen]:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).eval()
    torch.jit.save(torch.jit.script(net), folder / "s.pt")
    raw = (folder / "s.pt").read_bytes()
    inner = _inner("s.pt", raw, "/data.pkl", instructions, _OPCODES)
    yield Specimen("torchscript", {"s.pt": raw}, "s.pt", (_plain("s.pt", raw, records), inner))


def _peft(folder: Path) -> Iterator[Specimen]:
    base = Checkpoint.from_arrays(
        {"layers.0.q.weight": np.ones((4, 6), "f4"), "layers.0.v.weight": np.ones((4, 6), "f4")}
    )
    pairs = {
        f"base_model.model.layers.0.{part}.lora_{side}.weight": np.ones(shape, "f4")
        for part in "qv"
        for side, shape in (("A", (2, 6)), ("B", (4, 2)))
    }
    write_checkpoint(Checkpoint.from_arrays(pairs), folder / "adapter_model.safetensors")
    raw = (folder / "adapter_model.safetensors").read_bytes()
    config = json.dumps(
        {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 4,
            "alpha_pattern": {"q": 8, "v.*": 2},
            "use_rslora": False,
            "base_model_name_or_path": "nowhere",
            "fan_in_fan_out": False,
            "auto_mapping": {"parent_library": STRANGER},
        }
    ).encode()

    def merge(adapter: Checkpoint) -> None:
        for entry in merged(base, adapter).values():
            for _ in entry.chunks():
                pass

    files = {"adapter_config.json": config, "adapter_model.safetensors": raw}
    yield Specimen(
        "peft folder",
        files,
        None,
        (_plain("adapter_config.json", config, tokens, _JSON), _header("adapter_model.safetensors", raw)),
        read=merge,
    )


def _written(folder: Path, name: str) -> bytes:
    found = Checkpoint.from_arrays(_ARRAYS, metadata={"a": "b"})
    return write_checkpoint(found, folder / name).read_bytes()


_MAKERS: Mapping[Callable[[Path], Iterator[Specimen]], Sequence[str]] = {
    _safetensors: ["safetensors"],
    _sharded: ["sharded", "save_pretrained folder"],
    _torch: ["torch zip", "torch legacy"],
    _pickles: ["plain pickle"],
    _distributed: ["distributed"],
    _npz: ["npz", "npz, deflated"],
    _gguf: ["gguf"],
    _hdf5: ["hdf5", "keras"],
    _onnx: ["onnx"],
    _exported: ["torch.export"],
    _scripted: ["torchscript"],
    _peft: ["peft folder"],
}
FORMATS = [format for formats in _MAKERS.values() for format in formats]
