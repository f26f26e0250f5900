"""The short form of benchmarks/fuzz.py: some mutations of each specimen, the same ones every time."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import holding
import pytest
from specimens import FORMATS, STRANGER, Specimen, made

MUTATIONS = 40
QUICK = [format for format in FORMATS if format != "torch.export"]  # which takes seconds to write one
SLOW = ("hdf5", "keras")  # a process is begun for each file


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Specimen]:
    for library in ("h5py", "onnx", "gguf"):
        pytest.importorskip(library)
    return made(tmp_path_factory.mktemp("sound"), QUICK)


@pytest.fixture(scope="module", autouse=True)
def watched() -> None:
    holding.watch()


def test_sound_files_are_read(specimens: dict[str, Specimen]) -> None:
    assert {name.rpartition("/")[0] for name in specimens} == set(QUICK)
    for name, specimen in specimens.items():
        assert holding.exercise(specimen, dict(specimen.files)), name


def test_damaged_ones_are_read_or_refused_and_nothing_else_happens(specimens: dict[str, Specimen]) -> None:
    tallies = {
        name: holding.run(specimen, 0, 0, MUTATIONS // 8 if specimen.format in SLOW else MUTATIONS)
        for name, specimen in specimens.items()
    }
    assert holding.faults(tallies) == []
    assert sum(tally.read for tally in tallies.values()) > 30
    assert sum(tally.refused for tally in tallies.values()) > 300


def fill(pages: mmap.mmap) -> None:
    for at in range(0, len(pages), mmap.PAGESIZE):
        pages[at] = 1


def test_what_a_file_may_not_do_is_seen(specimens: dict[str, Specimen], tmp_path: Path) -> None:
    """Each of these, put into a reader, is a fault: else the other tests hold nothing."""
    (tmp_path / f"{STRANGER}.py").write_text("")
    pages = mmap.mmap(-1, 200 << 20)  # which no heap that is kept can give
    acts = {
        "open": lambda found: (tmp_path / "new").write_text("x"),
        "import": lambda found: __import__(STRANGER),
        "exec": lambda found: exec("1"),
        "subprocess.Popen": lambda found: subprocess.run([sys.executable, "-c", ""], check=False),
        "AssertionError": lambda found: holding._check(" "),
        "hangs": lambda found: [None for _ in iter(int, 1)],
        "much memory": lambda found: fill(pages),
        "MemoryError": lambda found: bytearray(holding.ADDRESSES_MOST * 2),
        "SIGSEGV": lambda found: __import__("os").kill(__import__("os").getpid(), 11),
    }
    specimen = specimens["safetensors/0"]
    sys.path.insert(0, str(tmp_path))
    try:
        for word, act in acts.items():
            spoilt = Specimen("spoilt", specimen.files, specimen.opens, (_Sound(),), read=act)  # type: ignore[arg-type]
            seconds = pytest.MonkeyPatch()
            seconds.setattr(holding, "CPU_MOST", 0.5)
            tally = holding.run(spoilt, 0, 0, 1)
            seconds.undo()
            assert [fault for fault in tally.faults if word in fault], (word, tally)
    finally:
        sys.path.remove(str(tmp_path))


class _Sound:
    """A part that no mutation changes: the file stays as it is."""

    raw, numbers, spans, words = b"x" * 99, [(0, 1)], (), ()

    @staticmethod
    def rebuilt(raw: bytes) -> dict[str, bytes]:
        return {}
