"""Archives of `torch.export.save`: since torch 2.8 a zip of each weight's bytes, and of JSON that names them;
before, a zip in which the state dict lies as `torch.save` writes it.

The program in it is not looked at. Constants and buffers that are never saved lie elsewhere in it, as in torch.
"""

from typing import Any

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Tensor, Unread
from ckptswap.errors import FormatError
from ckptswap.formats.archive import ZIP_MAGIC, Archive, ZipChecksums
from ckptswap.formats.format import Format
from ckptswap.formats.objects import parse_object
from ckptswap.formats.torch_pickle import Storage, Stretch, View, view_fault
from ckptswap.formats.torch_zip import open_torch_zip
from ckptswap.storage import ByteSource, Folder, Slice

CONFIG = "/data/weights/model_weights_config.json"
CONFIG_MOST = 64 << 20  # bytes
FORMER = tuple(f"serialized_state_dict.{end}" for end in ("pt", "json"))
"""What the state dict is called in an archive of torch 2.2 to 2.7, and of 2.1."""
DTYPES = {1: "U8", 2: "I8", 3: "I16", 4: "I32", 5: "I64", 6: "F16", 7: "F32", 8: "F64", 10: "C64", 11: "C128",
          12: "BOOL", 13: "BF16", 28: "U16", 29: "F8_E4M3", 30: "F8_E5M2", 31: "F8_E4M3FNUZ",
          32: "F8_E5M2FNUZ", 33: "F8_E8M0", 34: "U32", 35: "U64"}  # fmt: skip
"""The numbers of the dtypes in torch.export's schema, and ours."""


def open_exported(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open an archive lazily; raises `FormatError` when it is damaged or hostile."""
    archive = Archive(file)
    if former := [name for name in FORMER if name in archive]:
        return _open_former(archive, former[0])
    configs = [name for name in archive.members if name.endswith(CONFIG)]
    if len(configs) != 1:
        name = CONFIG.rpartition("/")[2]
        raise _refusal(
            file, f"it has {len(configs) or 'no'} {name}, which torch 2.8 and later write, nor {FORMER[0]}"
        )
    config = _parsed(archive, configs[0])
    tensors, unread = [], {}
    for name, fields in config.items():
        try:
            held = _tensor(archive, configs[0].removesuffix(CONFIG), name, fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise _refusal(file, f"what it says of {name[:80]!r} is not of this form ({error!s:.60})") from None
        if isinstance(held, Unread):
            unread[name] = held
        else:
            tensors.append(held)
    return Checkpoint(tensors, path=file.name, format=FORMAT.name, sources=[file], unread=unread,
                      checksums=[ZipChecksums([file])])  # fmt: skip


def _open_former(archive: Archive, name: str) -> Checkpoint:
    file, size = archive.file, archive.stored(name).size
    inside = open_torch_zip(Slice(*archive.place(name), size))
    return inside.holding((), path=file.name, format=FORMAT.name, sources=(file,),
                          checksums=(ZipChecksums([file]),))  # fmt: skip


def _parsed(archive: Archive, name: str) -> dict[str, Any]:
    """What the archive says of its weights, by their names. Raises `FormatError`."""
    try:
        config = parse_object(archive.read(name, CONFIG_MOST, ignore_crc=0)).get("config")
    except ValueError as error:
        raise _refusal(archive.file, f"its {name[:80]!r} {error}") from None
    if not isinstance(config, dict):
        raise _refusal(archive.file, f"its {name[:80]!r} lists no weights")
    return config


def _tensor(archive: Archive, prefix: str, name: str, fields: Any) -> Tensor | Unread:
    about = fields["tensor_meta"]
    shape, strides = (tuple(size["as_int"] for size in about[key]) for key in ("sizes", "strides"))
    if fault := dtypes.shape_fault(shape):
        raise _refusal(archive.file, f"tensor {name[:80]!r} has {fault}")
    dtype = DTYPES.get(about["dtype"])
    if dtype is None or fields["use_pickle"]:
        return Unread("a pickled tensor" if dtype else f"a tensor of torch's dtype {about['dtype']}", shape, dtype)
    member = archive.stored(f"{prefix}/data/weights/{fields['path_name']}")
    storage = Storage(member.name, dtype, member.size * 8 // dtypes.bits(dtype))
    view = View(storage, about["storage_offset"]["as_int"], shape, strides, dtype)
    if fault := view_fault(view, member.size):
        raise _refusal(archive.file, f"tensor {name[:80]!r} {fault}")
    return Tensor(name, shape, dtype, view.source(Stretch(*archive.place(member.name), member.size)))


def _refusal(file: ByteSource, fault: str) -> FormatError:
    return FormatError(f"{file.name} is not a sound archive of torch.export", remedy=fault)


def _claims(head: bytes, source: ByteSource) -> bool:
    """A zip whose first member is a weight, or the program: its name stands right at the beginning."""
    name = source.pread(int.from_bytes(head[26:28], "little"), 30)
    is_ours = b"/data/weights/" in name or name.startswith(b"serialized_") or source.name.endswith(".pt2")
    return head.startswith(ZIP_MAGIC) and is_ours


FORMAT = Format("torch.export", open_exported, what="an archive of torch.export", suffixes=(".pt2",),
                promised=True, claims=_claims)  # fmt: skip
