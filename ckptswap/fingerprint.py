"""The hash by which a result names the checkpoint that it came from."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ckptswap.checkpoint import CHUNK, Checkpoint, page_aligned
from ckptswap.errors import FileError

SHA256_MOST = 256 << 20
"""Bytes up to which SHA-256 is used; beyond, hashing would outlast copying."""


def fingerprint(checkpoint: Checkpoint, stop: threading.Event | None = None) -> dict[str, str]:
    """{algorithm: hexadecimal digest} of a checkpoint's files.

    SHA-256 as `Checkpoint.sha256` defines it; for more than `SHA256_MOST` bytes of files, XXH3-128 instead, as
    `xxhsum -H2` prints it, at an eighth of the time. That tells files apart, but not against somebody who forges
    one. Setting `stop` ends a long hash early, with a digest that means nothing. Raises `FileError` when a file is
    no longer there, or no longer the one that was opened.

    >>> import numpy as np
    >>> sorted(fingerprint(Checkpoint.from_arrays({"w": np.zeros(3)})))
    ['sha256']
    """
    try:
        if sum(path.stat().st_size for path in checkpoint.files) <= SHA256_MOST:
            return {"sha256": checkpoint.sha256()}
        digest = _xxh3(checkpoint, stop or threading.Event())
    except OSError as error:
        raise FileError(
            f"{checkpoint.path} cannot be read again for its hash ({error.strerror})", remedy="was it moved?"
        ) from None
    checkpoint.check_files()
    return {"xxh3_128": digest}


def _xxh3(checkpoint: Checkpoint, stop: threading.Event) -> str:
    import xxhash

    if len(checkpoint.files) == 1:
        return _xxh3_of(checkpoint.files[0], stop)
    lines = "".join(f"{_xxh3_of(path, stop)}  {path.name}\n" for path in sorted(checkpoint.files))
    return xxhash.xxh3_128_hexdigest(os.fsencode(lines))


def _xxh3_of(path: Path, stop: threading.Event) -> str:
    import xxhash

    digest = xxhash.xxh3_128()
    buffer = page_aligned(CHUNK).data
    with open(path, "rb", buffering=0) as file:
        while not stop.is_set() and (count := file.readinto(buffer)):
            digest.update(buffer[:count])
    return digest.hexdigest()
