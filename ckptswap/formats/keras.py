"""Files of Keras 3: a zip archive of a configuration, which we do not run, and of weights in HDF5."""

import json
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats.archive import ZIP_MAGIC, Archive, ZipChecksums
from ckptswap.formats.format import Format
from ckptswap.formats.hdf5 import open_hdf5
from ckptswap.formats.objects import strings
from ckptswap.storage import ByteSource, Folder, Slice

WEIGHTS, ABOUT = "model.weights.h5", "metadata.json"
ABOUT_MOST = 1 << 16  # bytes
_FIRST = (WEIGHTS.encode(), ABOUT.encode(), b"config.json")


def open_keras(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open lazily. Raises `FormatError` when it is damaged or hostile, `DependencyError` without the extra
    `formats`."""
    archive = Archive(file)
    member = archive.stored(WEIGHTS)
    inside = open_hdf5(Slice(*archive.place(WEIGHTS), member.size))
    metadata = {**inside.metadata, **_about(archive)}
    return inside.holding((), path=file.name, format=FORMAT.name, sources=(file,), metadata=metadata,
                          checksums=(ZipChecksums([file]),))  # fmt: skip


def _about(archive: Archive) -> dict[str, str]:
    """What the file says of itself; nothing where that is missing or not of this form."""
    if ABOUT not in archive or not archive.members[ABOUT].is_stored:
        return {}
    try:
        about: Any = json.loads(archive.read(ABOUT, ABOUT_MOST))
        return strings(about)
    except (ValueError, RecursionError):
        return {}


def _claims(head: bytes, source: ByteSource) -> bool:
    """A zip whose first member is one of Keras's: its name stands right at the beginning."""
    return head.startswith(ZIP_MAGIC) and head[30:].startswith(_FIRST)


FORMAT = Format("keras", open_keras, what="an archive of Keras", suffixes=(".keras",), promised=True,
                claims=_claims)  # fmt: skip
