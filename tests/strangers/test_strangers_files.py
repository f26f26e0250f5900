"""Small files of a stranger's, and patterns against them: each ends in one sentence, within 5 s and 500 MB.

The program runs in one child process that is limited by the system, once a case. Relatives of the reported ones
that were made for this: names of many `_` and digits, a chain of wrappers that is itself a name, ten thousand
deflated members, an index that nests, hexadecimal numbers, keys with dots, a socket and a device, lazy and counted
repeats, ranges and `**` between them, near names of thousands of long ones.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SECONDS, MEGABYTES = 5.0, 500.0

PEAK = r"""
import re
def peak_megabytes():
    # ru_maxrss would count the process that this one was started by
    return int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) / 1e3
"""
CHILD = (
    PEAK
    + r"""
import contextlib, io, json, os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000,) * 2)
import numpy, ckptswap.formats
from ckptswap.cli.main import main

def used():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime

for name, words in json.loads(sys.stdin.read()).items():
    begin, out, err = used(), io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    resource.setrlimit(resource.RLIMIT_CPU, (int(begin) + 12, resource.RLIM_INFINITY))
    sys.argv = ["ckptswap", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    texts = [each.buffer.getvalue().decode("utf-8", "replace") for each in (out, err)]
    print(json.dumps([name, code, *texts, used() - begin, peak_megabytes()]), flush=True)
"""
)


def run_all(cases: dict[str, list[str]], folder: Path) -> dict[str, tuple[int, str, str, float, float]]:
    """Each command's exit code, stdout, stderr, seconds, and the process's largest memory so far in MB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(cases), capture_output=True, text=True, cwd=folder
    )
    found = {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}
    missing = next((name for name in cases if name not in found), None)
    assert missing is None, f"{missing!r} ended the process ({done.returncode}): {done.stderr[-500:]}"
    return found  # type: ignore[return-value]


# The files ------------------------------------------------------------------------------------------------------


def safetensors(names: list[str], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors of one number each."""
    fields: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for at, name in enumerate(names):
        fields[name] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]}
    raw = json.dumps(fields).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(4 * len(names))


def header(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def npy(count: int) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.zeros(count, np.uint8))
    return out.getvalue()


def overlapping(count: int) -> bytes:
    """An npz of arrays each of which holds all that follow it: 0.2 MB that say they are 100."""
    body, places = npy(100), []
    parts = [body]
    for at in reversed(range(count)):
        name = f"w{at}.npy".encode()
        if at < count - 1:  # the array's values are the members that follow
            inner = b"".join(parts)
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                head, {"descr": "|u1", "fortran_order": False, "shape": (len(inner),)}
            )
            parts.insert(0, head.getvalue())
        content = b"".join(parts)
        size = len(content)
        sizes = struct.pack("<3I2H", zlib.crc32(content), size, size, len(name), 0)
        local = struct.pack("<4s5H", b"PK\x03\x04", 20, 0, 0, 0, 0) + sizes
        parts.insert(0, local + name)
        places.append((name, zlib.crc32(content), len(content), sum(map(len, parts))))
    whole = b"".join(parts)
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, crc, size, size, len(name), 0, 0, 0, 0, 0,
                    len(whole) - back) + name
        for name, crc, size, back in places
    )  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(whole), 0)
    return whole + directory + end


def deflated(count: int) -> bytes:
    """An npz of compressed arrays of 1 MB of nothing."""
    out, zeros = io.BytesIO(), npy(1 << 20)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("w0.npy", zeros)
    first = out.getvalue()
    start = 30 + len("w0.npy")
    info = zipfile.ZipFile(io.BytesIO(first)).infolist()[0]
    packed = first[start : start + info.compress_size]
    parts, directory, at = [], [], 0
    for number in range(count):
        name = f"w{number}.npy".encode()
        sizes = struct.pack("<3I", info.CRC, len(packed), info.file_size)
        parts.append(
            struct.pack("<4s5H", b"PK\x03\x04", 20, 0, 8, 0, 0)
            + sizes
            + struct.pack("<2H", len(name), 0)
            + name
            + packed
        )
        directory.append(struct.pack("<4s6H", b"PK\x01\x02", 20, 20, 0, 8, 0, 0) + sizes
                         + struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, at) + name)  # fmt: skip
        at += len(parts[-1])
    listed = b"".join(directory)
    return (
        b"".join(parts) + listed + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(listed), at, 0)
    )


DEEP, LONG = 10_000, "9" * 5000
NEST = b"[" * DEEP + b"]" * DEEP
TREE = b'{"a":' * DEEP + b"1" + b"}" * DEEP
ONE = b'{"w": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 4]}}'

FILES: dict[str, bytes] = {
    "dots.safetensors": safetensors(["." * 100_000]),
    "segments.safetensors": safetensors([".".join("a" * 50_000)]),
    "module.safetensors": safetensors(["module." * 600_000 + "w"]),
    "modules.safetensors": safetensors(["module." * 1400 + each for each in ("w", "v")]),
    "wrappers.safetensors": safetensors(["module._orig_mod." * 500 + "w", "module._orig_mod." * 500]),
    "underlines.safetensors": safetensors(
        ["_emb" * 2000 + "x", "weight_ih_l" + "1" * 9000, "parametrizations." * 500 + "x"]
    ),
    "names.safetensors": safetensors([f"{'ab.' * 60}{at}.w" for at in range(5_000)]),
    "digits.safetensors": header(ONE % LONG.encode()) + bytes(4),
    "nested.safetensors": header(ONE % NEST) + bytes(4),
    "tree.safetensors": header(b'{"__metadata__": ' + TREE + b"}"),
    "overlapping.npz": overlapping(1000),
    "deflated.npz": deflated(10_000),
    "literal.npz": b"",
    "nest/model.safetensors.index.json": b'{"weight_map": ' + NEST + b"}",
    "tree/model.safetensors.index.json": b'{"weight_map": {"a": "b"}, "metadata": ' + TREE + b"}",
    "long/model.safetensors.index.json": b'{"weight_map": {"a": ' + LONG.encode() + b"}}",
    "config/config.json": TREE,
    "config/model.safetensors": safetensors(["w"]),
    "number/config.json": b'{"a": ' + LONG.encode() + b"}",
    "number/model.safetensors": safetensors(["w"]),
    "plain.safetensors": safetensors(["a.b.weight", "a.b.bias"]),
    "as.safetensors": safetensors(["a" * 5000, ".".join("a" * 2000)]),
}


def _literal() -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,)}" % LONG.encode()
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("w.npy", raw)
    return out.getvalue()


FILES["literal.npz"] = _literal()

PLAIN = "plain.safetensors"
CASES: dict[str, list[str]] = {
    **{f"show {name}": ["show", name] for name in FILES if name.endswith((".safetensors", ".npz"))},
    **{f"show {name}": ["show", name] for name in ("nest", "tree", "long", "config", "number")},
    **{f"diff {name}": ["diff", name, PLAIN] for name in FILES if name.endswith(".safetensors")},
    **{f"verify {name}": ["verify", name] for name in ("overlapping.npz", "dots.safetensors", "as.safetensors")},
    **{f"convert {name}": ["convert", name, "out.npz"] for name in ("overlapping.npz", "module.safetensors")},
    "near names of thousands": ["show", "names.safetensors", "--only", "ba." * 60 + "w"],
    "near layers of thousands": ["show", "names.safetensors", "--layers", ".".join("b" * 90)],
    "a glob": ["show", "as.safetensors", "--only", "*a" * 900 + "b"],
    "a glob of classes": ["show", "as.safetensors", "--only", "*[!b]?" * 600 + "b"],
    "a kind": ["show", "as.safetensors", "--kind", "*o" * 900 + "b"],
    "stars of layers": ["show", "as.safetensors", "--layers", "**.a." * 60 + "b"],
    "stars and ranges": ["show", "as.safetensors", "--layers", "**.*." * 60 + "0:9"],
    "a map of stars": ["diff", "as.safetensors", PLAIN, "--map", "*a" * 400 + "*b=*" ],
    "a map that repeats repeats": ["diff", "as.safetensors", PLAIN, "--map", r"re:(a+)+b=x"],
    "a map of many repeats": ["diff", "as.safetensors", PLAIN, "--map", r"re:(.*)a(.*)a(.*)a(.*)b=\1"],
    "a map of lazy repeats": ["diff", "as.safetensors", PLAIN, "--map", r"re:(.*?,?)*?b=x"],
    "a map of counted repeats": ["diff", "as.safetensors", PLAIN, "--map", r"re:(?:a?){40}a{40}=x"],
    "a file of maps": ["diff", "as.safetensors", PLAIN, "--map-file", "maps.txt"],
    "a pipe": ["show", "pipe.safetensors"],
    "a pipe as an index": ["show", "pipe"],
    "a device": ["show", "device.safetensors"],
    "a device as an index": ["show", "device/model.safetensors.index.json"],
    "a pipe as a file of maps": ["diff", PLAIN, PLAIN, "--map-file", "pipe.safetensors"],
    "a device as a file of maps": ["diff", PLAIN, PLAIN, "--map-file", "/dev/zero"],
}  # fmt: skip
SOUND = ("modules", "wrappers", "underlines", "names", "plain", "as", "config/model", "number/model")
FINE = {
    *(f"{command} {name}.safetensors" for command in ("show", "diff") for name in SOUND),
    "verify as.safetensors",
    "show deflated.npz",
}
"""These are odd and sound."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("strangers")
    for name, raw in FILES.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(raw)
    (place / "maps.txt").write_text("re:(a|aa)+b=x\n")
    os.mkfifo(place / "pipe.safetensors")
    (place / "device.safetensors").symlink_to("/dev/zero")
    for kind, make in (("pipe", os.mkfifo), ("device", lambda path: path.symlink_to("/dev/zero"))):
        (place / kind).mkdir()
        make(place / kind / "model.safetensors.index.json")  # type: ignore[operator]
    return place


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, tuple[int, str, str, float, float]]:
    return run_all(CASES, folder)


@pytest.mark.parametrize("case", CASES)
def test_small_files_end_in_a_sentence(case: str, outcomes: dict[str, tuple[int, str, str, float, float]]) -> None:
    code, out, err, seconds, megabytes = outcomes[case]
    assert seconds < SECONDS
    assert megabytes < MEGABYTES
    if case in FINE:
        assert code == 0, err
        return
    assert code == 2, (code, err[:300])
    if not case.startswith("verify"):
        assert out == ""
    sentences = [line for line in err.splitlines() if not line.startswith("ckptswap: note: ")]
    assert len(sentences) == (not case.startswith("verify")), err[:600]
    assert "fault of ours" not in err
    assert len(err) < 12_000


def test_the_files_are_small() -> None:
    assert max(map(len, FILES.values())) < 15_000_000
    assert len(FILES["overlapping.npz"]) < 300_000


# With a model ---------------------------------------------------------------------------------------------------


def naming(model: str, args: str) -> bytes:
    return safetensors(["w"], {"ckptswap.model": model, "ckptswap.model_args": args})


MODELS = {
    "wide": naming("lab:unet", '{"width": 1500}'),
    "deep": naming("lab:unet", '{"width": 1, "depth": 1000000000}'),
    "classes": naming("lab:pspnet", '{"classes": 1000000000}'),
    "digits": naming("lab:unet", '{"width": ' + LONG[:4000] + "}"),
    "nested": naming("lab:unet", TREE.decode()),
    "smp": naming("smp:Unet", '{"encoder_name": "resnet18", "decoder_channels": [90000, 90000, 9000, 900, 90]}'),
}
DATA = ["--data", "scans", "--limit", "1", "--metric", "iou"]
MODEL = ["--model", "lab:unet", "--model-args", "width=2,depth=1"]
EVALUATED: dict[str, list[str]] = {
    **{name: ["evaluate", f"{name}.safetensors", *DATA] for name in MODELS},
    "a pipe among the images": ["evaluate", "plain.safetensors", *MODEL, "--data", "piped", "--metric", "iou"],
    "a device among the masks": ["evaluate", "plain.safetensors", *MODEL, "--data", "devices", "--metric", "iou"],
    "a pipe as groups": ["evaluate", "plain.safetensors", *MODEL, *DATA, "--group", "pipe.csv"],
    "groups that repeat repeats": ["evaluate", "plain.safetensors", *MODEL, *DATA, "--group", "(a+)+b"],
    "groups of many repeats": ["evaluate", "plain.safetensors", *MODEL, *DATA, "--group", "(?:a*a*a*a*a*a*)(b)"],
    "a pipe as a task": ["evaluate", "plain.safetensors", *DATA, "-c", "pipe.toml"],
    "a task that nests": ["evaluate", "plain.safetensors", *DATA, "-c", "nested.toml"],
    "a task of dots": ["evaluate", "plain.safetensors", *DATA, "-c", "dots.toml"],
}


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> dict[str, tuple[int, str, str, float, float]]:
    for name, raw in MODELS.items():
        (folder / f"{name}.safetensors").write_bytes(raw)
    for data in ("scans", "piped", "devices"):
        for part in ("images", "masks"):
            (folder / data / part).mkdir(parents=True)
            np.save(folder / data / part / f"{'a' * 200}.npy", np.zeros((8, 8), np.uint8))
    os.mkfifo(folder / "piped/images/b.png")
    (folder / "devices/images/b.npy").symlink_to("/dev/zero")
    (folder / "devices/masks/b.npy").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.csv")
    os.mkfifo(folder / "pipe.toml")
    (folder / "nested.toml").write_text("model-args = " + NEST.decode())
    (folder / "dots.toml").write_text("a." * 10_000 + "a = 1")
    first = {"first": ["evaluate", "plain.safetensors", "--data", "nowhere", *MODEL]}  # which takes up torch
    return run_all(first | EVALUATED, folder)


@pytest.mark.parametrize("case", EVALUATED)
def test_what_is_evaluated_ends_in_a_sentence(
    case: str, evaluated: dict[str, tuple[int, str, str, float, float]]
) -> None:
    code, out, err, seconds, megabytes = evaluated[case]
    assert (code, out) == (2, ""), err
    assert "fault of ours" not in err
    assert len(err.splitlines()) == 1
    assert seconds < SECONDS
    assert megabytes - evaluated["first"][-1] < MEGABYTES


# Completion -----------------------------------------------------------------------------------------------------

COMPLETED = ["dots", "module", "modules", "segments", "names", "as", "nested", "pipe", "device"]


@pytest.mark.parametrize("flag", ["--layers", "--only"])
def test_completion_keeps_to_the_same_limits(flag: str, folder: Path) -> None:
    """What TAB asks, of all files one after the other in one process."""
    code = (
        f"{PEAK}\nimport resource, sys\n"
        "from types import SimpleNamespace as S\n"
        "from ckptswap.cli.completion import complete_layers, complete_names\n"
        "flag, *names = sys.argv[1:]\n"
        "for name in names:\n"
        "    offered = complete_layers if flag == '--layers' else complete_names\n"
        "    found = offered(S(params={'checkpoint': f'{name}.safetensors'}), '')\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(name, len(found), used.ru_utime + used.ru_stime, peak_megabytes(), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, flag, *COMPLETED], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "_CKPTSWAP_COMPLETE": "complete_bash", "COMP_WORDS": ""},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == COMPLETED
    before = 0.0
    for name, count, seconds, megabytes in lines:
        assert float(seconds) - before < SECONDS, name
        assert float(megabytes) < MEGABYTES, name
        assert int(count) <= 500
        before = float(seconds)


def test_completion_gives_up_in_time(folder: Path) -> None:
    """Whatever a file asks for: here words without end, and more memory than there should be."""
    code = (
        "import sys\n"
        "from types import SimpleNamespace as S\n"
        "from ckptswap.cli import completion\n"
        "completion.SECONDS = 0.5\n"
        "def endless(found):\n"
        "    while True: pass\n"
        "def large(found):\n"
        "    yield 'a' * 2_000_000_000\n"
        "for words in (endless, large):\n"
        "    print(completion._completing(words)(S(params={'checkpoint': 'plain.safetensors'}), ''))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "_CKPTSWAP_COMPLETE": "complete_bash", "COMP_WORDS": ""},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")
