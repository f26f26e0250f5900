"""The hash by which a result names the checkpoint that it came from."""

import hashlib
from threading import Event

import xxhash

from ckptswap.checkpoint import Checkpoint

SHA256_MOST = 256 << 20  # bytes up to which SHA-256 is used; beyond, hashing would outlast copying


def fingerprint(checkpoint: Checkpoint, stop: Event | None = None) -> dict[str, str]:
    """{algorithm: hexadecimal digest} of a checkpoint's files: SHA-256, as `Checkpoint.sha256` defines it.

    For more than `SHA256_MOST` bytes of files XXH3-128, as `xxhsum -H2` prints it, at an eighth of the time: it
    tells files apart, but not against somebody who forges one. Files on other machines are not read for it: where
    their SHA-256 is not known there, {"version": …} is what their server calls them. Setting `stop` ends a hash
    early, with a digest that means nothing. Raises `FileError` when a file is no longer there, or no longer the
    one that was opened.

    >>> import numpy as np
    >>> sorted(fingerprint(Checkpoint.from_arrays({"w": np.zeros(3)})))
    ['sha256']
    """
    if versions := [source.version for source in checkpoint.sources if source.version]:
        if len(versions) == len(checkpoint.sources) and all(version.sha256 for version in versions):
            return {"sha256": checkpoint.sha256()}
        told = versions[0].text if len(checkpoint.sources) == 1 else "several files"
        return {"version": told or "the server names none"}
    if sum(source.size for source in checkpoint.sources) <= SHA256_MOST:
        return {"sha256": checkpoint.hashed(hashlib.sha256, stop)}
    return {"xxh3_128": checkpoint.hashed(xxhash.xxh3_128, stop)}
