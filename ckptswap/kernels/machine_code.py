"""Loops as machine code: compiled by numba, kept in the user's cache, loaded without numba.

numba takes a quarter of a second to be imported; llvmlite, on which it is built, loads the code that came of it in
30 ms. The code is kept under a name that holds what it was made of (the loops' source, the versions, the
processor), with a checksum, and only read where nobody else may write.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FASTMATH = {"reassoc", "contract", "nsz"}  # sums in any order; NaN, Inf and what underflows stay what they are
_SUM = hashlib.sha256().digest_size
_SOURCES = ("loops.py", "widening.py", "machine_code.py")
_NAME = "loop"
_engines: list[Any] = []  # whose memory the loaded code lies in


@dataclass(frozen=True)
class Loop:
    """A loop of `loops`: its name, for what it is made, as which numbers it sees values, of how many tensors; how
    many tables of doubles it fills beside one of integers, and how many integers it takes at the end."""

    name: str
    made_for: str
    values: str
    tensors: int = 2
    sums: int = 0
    sizes: int = 1


def is_kept(loop: Loop) -> bool:
    """Whether the cache has it."""
    return _kept(loop) is not None


def function(loop: Loop) -> Callable[..., Any]:
    """The loop as a function of addresses and integers; it runs with the interpreter's lock let go.

    It comes from the cache, or is compiled, and kept where the cache can be written.
    """
    from llvmlite import binding as llvm

    code = _kept(loop) or _compiled(loop)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    # numba's own convention: first where to put a result and an exception, of which there are none.
    scratch = ctypes.create_string_buffer(8)
    kinds = [ctypes.c_void_p] * (3 + loop.tensors + loop.sums) + [ctypes.c_int64] * loop.sizes
    pointer = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(engine.get_function_address(_NAME))
    return functools.partial(pointer, scratch, scratch)


def _kept(loop: Loop) -> bytes | None:
    """The code from the cache; None where it is not there, not whole, or somebody else could have written it."""
    try:
        with open(_path(loop), "rb") as file:
            status, raw = os.fstat(file.fileno()), file.read()
    except OSError:
        return None
    is_ours = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return raw[_SUM:] if is_ours and hashlib.sha256(raw[_SUM:]).digest() == raw[:_SUM] else None


def _compiled(loop: Loop) -> bytes:
    code = _object_code(loop)
    path = _path(loop)
    with contextlib.suppress(OSError):
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(file.name, path)
    return code


def _object_code(loop: Loop) -> bytes:
    """One function without any other that it would call, so that nothing of numba is needed to run it."""
    from llvmlite import binding as llvm
    from numba import cfunc, types

    from ckptswap.kernels import loops

    values, numbers, counts = (types.CPointer(getattr(types, name)) for name in (loop.values, "float64", "int64"))
    signature = types.void(*[values] * loop.tensors, *[numbers] * loop.sums, counts, *[types.int64] * loop.sizes)
    made = cfunc(signature, error_model="numpy", fastmath=_FASTMATH)(getattr(loops, loop.name)(loop.made_for))
    module = llvm.parse_assembly(made.inspect_llvm())
    _keep_only(module, made.native_name.removeprefix("cfunc."))
    others = [each.name for each in module.functions if each.is_declaration and not each.name.startswith("llvm.")]
    if others:
        raise RuntimeError(f"{loop.name} of {loop.made_for} calls {', '.join(others)}")
    return _machine().emit_object(module)


def _keep_only(module: Any, name: str) -> None:
    """Drop all that one function does not need, numba's way into it from Python first."""
    from llvmlite import binding as llvm

    for each in (*module.functions, *module.global_variables):
        if not each.is_declaration and each.name != name:
            each.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(_machine(), llvm.create_pipeline_tuning_options()))
    module.get_function(name).name = _NAME


def _machine() -> Any:
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = _processor()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="static", jit=True)


def _processor() -> tuple[str, str]:
    from llvmlite import binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _path(loop: Loop) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "ckptswap" / "kernels" / f"{loop.name}-{loop.made_for}-{_made_of()}.o"


@functools.cache
def _made_of() -> str:
    """What the code depends on, as one word."""
    sources = [(Path(__file__).parent / name).read_bytes() for name in _SOURCES]
    from importlib.metadata import version  # takes long beside the start of a command

    words = [version("numba"), version("llvmlite"), *_processor()]
    return hashlib.sha256(b"\0".join([*sources, *map(str.encode, words)])).hexdigest()[:32]
