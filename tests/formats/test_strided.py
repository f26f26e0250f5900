"""Strided and tiled reading against numpy's own views."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap.formats.strided import Piece, PieceSource, boxes, contiguous, strided
from ckptswap.sources import FileRange
from ckptswap.storage import LocalFile

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


def bytes_of(source: PieceSource | FileRange, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    source.read_into(memoryview(buffer), start)
    return bytes(buffer)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, st.data())
def test_boxes_cut_a_stretch_in_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    numbers = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
    first = data.draw(st.integers(0, numbers.size))
    last = data.draw(st.integers(first, numbers.size))
    cut = [numbers[tuple(slice(a, b) for a, b in box)].ravel() for box in boxes(shape, first, last)]
    assert np.concatenate([np.empty(0, int), *cut]).tolist() == list(range(first, last))
    assert len(cut) <= max(1, 2 * len(shape))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_any_view_reads_as_numpy_sees_it(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([1, 2, 4, 8, 16]))
    shape = data.draw(SHAPES)
    steps = tuple(data.draw(st.integers(0, 7)) for _ in shape)
    offset = data.draw(st.integers(0, 9))
    content = np.random.default_rng(0).integers(0, 256, width * 200, dtype=np.uint8)
    elements = content.view(f"V{width}")
    view = np.lib.stride_tricks.as_strided(elements[offset:], shape, tuple(step * width for step in steps))
    wanted = np.ascontiguousarray(view).tobytes()
    start = data.draw(st.integers(0, len(wanted)))
    stop = data.draw(st.integers(start, len(wanted)))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a").write_bytes(content.tobytes())
        file = LocalFile(f"{folder}/a")
        source = strided(file, offset * width, shape, tuple(step * width for step in steps), width)
        assert bytes_of(source, start, stop) == wanted[start:stop]
        file.close()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_large_transposed_views_are_read_in_small_spans(axes: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 200, 60)).astype(np.float32)
    (tmp_path / "a").write_bytes(values.tobytes())
    view = values.transpose(axes)
    file = LocalFile(tmp_path / "a")
    seen = []

    class Watched:
        name, size = "watched", file.size

        def pread_into(self, buffer: memoryview, offset: int) -> None:
            seen.append(len(buffer))
            file.pread_into(buffer, offset)

    source = strided(Watched(), 0, view.shape, view.strides, 4)
    wanted = view.tobytes()
    for start in range(0, len(wanted), 1 << 20):
        assert bytes_of(source, start, min(start + (1 << 20), len(wanted))) == wanted[start : start + (1 << 20)]
    assert max(seen) <= 1 << 23
    file.close()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_a_tiling_reads_as_one(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    cuts = [sorted({0, size, *data.draw(st.sets(st.integers(0, size), max_size=2))}) for size in shape]
    values = np.random.default_rng(1).normal(size=shape)
    with tempfile.TemporaryDirectory() as folder:
        pieces, files = [], []
        for corner in np.ndindex(*(len(cut) - 1 for cut in cuts)):
            box = [(cut[at], cut[at + 1]) for cut, at in zip(cuts, corner, strict=True)]
            part = np.ascontiguousarray(values[tuple(slice(a, b) for a, b in box)])
            Path(folder, str(corner)).write_bytes(part.tobytes())
            files.append(LocalFile(f"{folder}/{corner}"))
            strides = contiguous(part.shape, 8)
            pieces.append(Piece(files[-1], 0, strides, tuple(a for a, _ in box), part.shape))
        source = PieceSource(shape, 8, pieces)
        start = data.draw(st.integers(0, values.nbytes))
        assert bytes_of(source, start, values.nbytes) == values.tobytes()[start:]
        for file in files:
            file.close()
