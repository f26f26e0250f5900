"""Pickles as Pythons 3.8 to 3.14 write them, in every protocol: they differ in how enums, paths and old classes
are spelt. Some are recorded, some written by whatever Python lies about, some by this one in the others' way."""

from __future__ import annotations

import argparse
import base64
import collections
import datetime
import enum
import io
import pathlib
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from format_samples import VICTIM

from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.distributed import NAMES as DISTRIBUTED
from ckptswap.formats.inert import Inert
from ckptswap.formats.pickles import read_pickle
from ckptswap.formats.torch_pickle import NAMES

torch = pytest.importorskip("torch")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ROOM = "torch.distributed.checkpoint.metadata"
BAGGAGE = {
    "path": pathlib.PosixPath("a/b"),
    "pure": pathlib.PureWindowsPath("c"),
    "namespace": argparse.Namespace(lr=1, names=["a"]),
    "set": {1, 2},
    "frozen": frozenset(["a"]),
    "bytes": b"\xff",
    "no bytes": b"",
    "array": bytearray(b"ab"),
    "complex": 1j,
    "range": range(3),
    "default": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("aab"),
    "moment": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "float": 1.5,
    "big": 1 << 70,
    "negative": -3,
    "text": "ü\n'\"\\",
    "scalar": np.float32(3),
    "numbers": np.arange(3),
    "version": torch.torch_version.TorchVersion("2.1.0"),
    "dtype": torch.float32,
    "device": torch.device("cpu"),
    "size": torch.Size([2, 3]),
    "layout": torch.strided,
}
PLAIN = {name: BAGGAGE[name] for name in ("default", "counter", "float", "big", "negative", "text")}


@contextmanager
def python_313() -> Iterator[None]:
    """Paths lie in `pathlib._local` in Python 3.13, and in no other; enums are written as in all but 3.11."""
    local = argparse.Namespace(PosixPath=pathlib.PosixPath, PureWindowsPath=pathlib.PureWindowsPath)
    with (
        others(),
        patch.dict(sys.modules, {"pathlib._local": local}),
        patch.object(pathlib.PosixPath, "__module__", "pathlib._local"),
        patch.object(pathlib.PureWindowsPath, "__module__", "pathlib._local"),
    ):
        yield


@contextmanager
def python_311_2() -> Iterator[None]:
    """Early releases of 3.11 write a member of an enum as `getattr(enum, name)`, not `enum(value)`."""

    def reduced(self: enum.Enum, _: int) -> tuple:
        return getattr, (self.__class__, self._name_)

    with patch.object(enum.Enum, "__reduce_ex__", reduced):
        yield


@contextmanager
def others() -> Iterator[None]:
    """3.8 to 3.10, 3.12, and 3.14."""

    def reduced(self: enum.Enum, _: int) -> tuple:
        return self.__class__, (self._value_,)

    with patch.object(enum.Enum, "__reduce_ex__", reduced):
        yield


PYTHONS = pytest.mark.parametrize("python", [others, python_311_2, python_313], ids=lambda each: each.__name__)


@pytest.mark.parametrize(
    ("zipped", "protocol"), [*((True, each) for each in PROTOCOLS[1:]), *((False, each) for each in PROTOCOLS[2:])]
)
@PYTHONS
def test_a_torch_file(python: Any, protocol: int, zipped: bool, tmp_path: Path) -> None:
    """torch itself reads no file in protocol 0: its ids of storages are texts there."""
    state = collections.OrderedDict(w=torch.rand(3, 4).t(), b=torch.rand(2).bfloat16(), n=torch.tensor(3))
    content = {"state_dict": state, "hyper_parameters": BAGGAGE}
    with python():
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(tmp_path / "a.pt") as found:
        assert found.notes == ("the tensors lie under 'state_dict'",)
        assert found.unread == {}
        assert list(found) == list(state)
        for name, tensor in state.items():
            assert found.read(name).tobytes() == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@PYTHONS
def test_what_lies_beside_is_read_as_it_was(python: Any, protocol: int) -> None:
    plain = {name: each for name, each in BAGGAGE.items() if name != "layout"}
    with python():
        raw = pickle.dumps(plain, protocol)
    found = read_pickle(io.BytesIO(raw), NAMES, where="a")
    assert list(found) == list(plain)
    assert {name: found[name] for name in PLAIN} == PLAIN
    assert found["namespace"].state == {"lr": 1, "names": ["a"]}
    assert found["size"] == (2, 3)
    module = "pathlib._local" if python is python_313 else "pathlib"
    assert found["path"].name == f"{module}.PosixPath"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@PYTHONS
def test_a_distributed_folder(python: Any, protocol: int, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.distributed.checkpoint as room

        state = {"model": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3)}, "root": Path("a"), "step": 3}
        room.save(state, checkpoint_id=tmp_path / "d", no_dist=True)
    metadata = pickle.loads((tmp_path / "d/.metadata").read_bytes())
    with python():
        raw = pickle.dumps(metadata, protocol)
    assert (b"getattr" in raw) is (python is python_311_2)
    (tmp_path / "d/.metadata").write_bytes(raw)
    with open_checkpoint(tmp_path / "d") as found:
        assert found.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found.read("b").tolist() == [1, 1, 1]


def asked(what: bytes) -> bytes:
    return b"\x80\x02cbuiltins\ngetattr\n" + what + b"R."


MEMBER = f"c{ROOM}\n_MEM_FORMAT_ENCODING\n".encode()


def test_getattr_is_looked_up_in_enums_alone() -> None:
    found = read_pickle(io.BytesIO(asked(b"(" + MEMBER + b"X\x01\x00\x00\x00at")), DISTRIBUTED, where="a")
    assert isinstance(found, Inert)
    assert found.name == f"{ROOM}._MEM_FORMAT_ENCODING"


@pytest.mark.parametrize(
    "arguments",
    [
        b"(ctorch\nfloat32\nX\x01\x00\x00\x00at",
        f"(c{ROOM}\nMetadata\nX\x01\x00\x00\x00at".encode(),
        b"(X\x02\x00\x00\x00osX\x06\x00\x00\x00systemt",
        b"(" + MEMBER + b"K\x01t",
        b"(" + MEMBER + b"t",
        b"(" + MEMBER + b"X\x01\x00\x00\x00aX\x01\x00\x00\x00bt",
        b"(cbuiltins\ngetattr\nX\x01\x00\x00\x00at",
    ],
)
def test_getattr_of_anything_else_is_refused(arguments: bytes) -> None:
    with pytest.raises(FormatError, match=r"asks for builtins\.getattr"):
        read_pickle(io.BytesIO(asked(arguments)), DISTRIBUTED, where="a")


@pytest.mark.parametrize("maker", ["_reconstructor", "__newobj__"])
@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ("cposix\nsystem\n", VICTIM),
        ("ccopyreg\n__newobj__\n", "not a class"),
        ("ccopyreg\n_reconstructor\n", "not a class"),
        ("X\x01\x00\x00\x00a", "not a class"),
    ],
)
def test_copyreg_makes_nothing_but_what_is_admitted(maker: str, made: str, fault: str) -> None:
    raw = f"ccopyreg\n{maker}\n({made}cbuiltins\nobject\nNtR.".encode()
    with pytest.raises(FormatError, match=fault):
        read_pickle(io.BytesIO(raw), NAMES, where="a")


WRITER = textwrap.dedent("""
    import argparse, collections, datetime, enum, io, pathlib, pickle, sys, types
    room = "torch.distributed.checkpoint.metadata"
    for end in range(1, 5):
        name = ".".join(room.split(".")[:end])
        sys.modules[name] = types.ModuleType(name)
    class _MEM_FORMAT_ENCODING(enum.Enum):
        TORCH_CONTIGUOUS_FORMAT = 0
    _MEM_FORMAT_ENCODING.__module__, sys.modules[room]._MEM_FORMAT_ENCODING = room, _MEM_FORMAT_ENCODING
    content = {"enum": _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT, "path": pathlib.PosixPath("a/b"),
               "pure": pathlib.PurePosixPath("c"), "namespace": argparse.Namespace(lr=1), "set": {1, 2},
               "frozen": frozenset(["a"]), "bytes": b"\\xff", "range": range(3), "complex": 1j,
               "default": collections.defaultdict(list, a=[1]), "ordered": collections.OrderedDict(a=1),
               "span": datetime.timedelta(1), "float": 1.5, "big": 1 << 70, "text": "\\xfc"}
    sys.stdout.buffer.write(b"".join(pickle.dumps(content, protocol) for protocol in range(6)))
""")


RECORDED = {
    "3.8.18": (
        "eNpVUstuEzEUzTzSaQjs+gcIKd1kz6pAWqJ2mocqNixQ5JlxYguPHXk8UlKpEiwoCFkCNJe/Ycev8AEs2aBwPQ4vjzQ+vuf4+vpc"
        "v4o/H0WddtzAwMZU1iXYB0bpnA0LXhnNs9rQYpgzmr9cKy7NsKSGFMQQsEeLydlk8XR2NXn8bHE2Hc1Oz6djaCDtvIErsPGaGAY2"
        "cZPgGdjeXFV8M3fRBmyAGYIMbr201hTYob03R/C/LIc2W0+SklZrklOwh0Sv1kRXCHvTP+EGjl/DDdhQaEiDKrNRRQ18gEEapOFH"
        "e7DU6ppKGLD+J7DdbGtoBaNgh5hoTbaYNqu5MFxWmNbRPtzAKCSZLyLJVbkWdAPs/l/cwLizH+OT7x60t+pqIlfUaffIWZNGafC2"
        "ZSvBc896hCwWOm3JpKBLUgsDtp8rIWhuuHJ19ffxgucGN+DmWGCbELr6WP8F5iCVTZQuqKYFsIe2P/P41G85djK0x9VfS0O10ySj"
        "PW7QQDQoDdndNKjbO0dF6w22nBpeouWxg86WOPkWhN6Yg1KVVBpgl/8oUXLHSbwlLefi10o6Dpc9tyyowMfUWoOfu73L6J8FNlYC"
        "e46+7CkbcoUlLdw/eeJaeD7zjR8FG0yB7mW2uxSKGBif/PAn2yjjK3jf+92lRzaSdAUXP3e7nY0N3aDN4dcveJ50pU1ttMWn8a4e"
        "/gI4/S2Z"
    ),
    "3.11.2": (
        "eNpVUstu00AUjR+pMQV1g8QXINJN/gAVcIsbrNhRSJfIGtuTeIQf0XgsJZUqwYKH0EiAcvkbdvwKH8CSDQp3PC5QW7LP3HPmzp1z"
        "72v7q28NuucKRtKmVVuCvJW0rBCsakA6KyqIEBx2IB+Imqf5OGON4CxpBc3GaU7TV+uaVWJcojAjgoC8F0/PpvGzaD59sojPQi86"
        "nYS+SnB/Ec2989iLwsXEv4guXvQieAdzkPaaiBxPVL+CJSDdWd2wzUxFcbOBmY3kWtpyCvkdeXeG4KYshbdK4lakpM2apBTvQ/hq"
        "TXiD0A3/hndw/AauQJoFh8BoEmk1VMAnGAVGYH6WB0teX9IKRvnRF5DDZCtoA56xR0w4J9sbNrmK1uEdeCZJdBFOWpfrgm4gf/gP"
        "78Af9I9/8lOD7lZDTqoVVdoe7SAYBFZgvO/YpmCpZjVCFgsNO9LJ6JK0hQB5mNZFQVPBalXXYR/PWCpwA262C2wfQlVffvQSc5BG"
        "OjXPKKcZ5I/kYaTxqd5yrGRoj6q/rQTlSuN4Pd6BGhtsTWCq5gRG293byjp/cByoYCXabiuorLGdH4apzTko65JWAvL5f0qU3FYS"
        "bUvHqfhlXSkOl65aZrTAQevswVc5oDLq0cDmVpDH6E1PSZPVWFKsvs5T1cZJpJvvGRtMgQ4mcrgsaiLAP/mlT5ZWwlbw0b3u1GNp"
        "VXQFz3/v93tpC7pBq83v3/C8SpUWSmuL4/GhHf8BHsVCCQ=="
    ),
    "3.13.0": (
        "eNplUsuO0zAUbR6dTBnBijUbhNRuyicMTGeohqgPjdghVDmJp7Fw7MpxpHakkWDBQ+hKgHL5G3b8Ch/Akg0q10l4iURKju859/r6"
        "XL8IP42CXvNc4xBCrqoC4Z7VJs3HmSitEUlleTZOc54+32ih7LjglmXMMoTbq9nZbPVocTF7+GR1Np8sTs/nU6wx7r3CC4Rww2yO"
        "cMv9pEjGK6lTJhEGS12K7dKRNULA7ifY6SvDMT+Em0sC/4i8tJUMFCt4uWEpRzhkZr1hpiQ4mP8O1zh6idcIvjQYe2UCQcktvsdh"
        "7MX+Bzi4NPqKKzqrx/AjQj/ZWV7ixNsTZsawHRVOKiGtUCUVdnQbrnHis67TKNXFRvIt5nf/4Bqnve6ZHn9rwWun7hum1txpO+Qc"
        "ioPYe9OwpRRpy7aIWGp13pBRxi9ZJS3CUaql5KkV2vV11MUzkVpKoORQ0rQIuv7yO8+oBish0ibjhmf/pS/a+GmbPnIpZJY7S6Us"
        "N5ifQDTpcE12Don3wUuobNU4EGSNU3QPuBUFjSB00JkURl89v7XpoNAFVxbz+V9KktxwktaghnPxK60cR8uBW2Zc0g1rjKLXeeEq"
        "NnaGNGiF+VNyqaPAF5paWrlvdOIGer5oL8LE21IJ8jKB/qXUzOL0+Hu7MwSJWOO7wa+ZPYBA8TU+/rHf7yG0fEum+18+037KtTaH"
        "YEcX5W01/gkmMDbt"
    ),
}
"""Pickles of such content by Pythons that are not at hand everywhere: in base 64, deflated."""


def at_hand() -> list[str]:
    """The Python of these tests, and those that lie where they usually do."""
    usual = [*Path("/usr/bin").glob("python3.[0-9]*"), *Path.home().glob(".pyenv/versions/3.*/bin/python")]
    found = [str(each) for each in usual if re.search(r"3\.(8|9|1[0-4])(?![^/]*config)\b", str(each))]
    return [sys.executable, *sorted(found)]


@pytest.mark.parametrize("python", at_hand())
def test_what_a_python_writes(python: str) -> None:
    done = subprocess.run([python, "-c", WRITER], capture_output=True, check=True)
    stream = io.BytesIO(done.stdout)
    for _ in range(6):
        is_what_was_written(read_pickle(stream, {**NAMES, **DISTRIBUTED}, where="a"))
    assert stream.read() == b""


@pytest.mark.parametrize("python", RECORDED)
def test_what_a_python_wrote(python: str) -> None:
    raw = zlib.decompress(base64.b64decode(RECORDED[python]))
    assert (b"getattr" in raw) is (python == "3.11.2")
    assert (b"pathlib._local" in raw) is (python == "3.13.0")
    is_what_was_written(read_pickle(io.BytesIO(raw), {**NAMES, **DISTRIBUTED}, where="a"))


def is_what_was_written(found: Any) -> None:
    assert found["enum"].name == f"{ROOM}._MEM_FORMAT_ENCODING"
    assert (found["default"], found["ordered"], found["big"]) == ({"a": [1]}, {"a": 1}, 1 << 70)
    assert (found["namespace"].state, found["float"], found["text"]) == ({"lr": 1}, 1.5, "ü")
