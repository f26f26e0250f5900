"""`file.py:name` and `package.module:name`: the user's own code, found, called, and blamed where it fails.

What user code prints goes to stderr, since stdout carries results only, in whatever thread it runs.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

from ckptswap.errors import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    CkptswapError,
    TaskError,
    near,
)

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NOT_USERS = (str(Path(__file__).parents[1]), "site-packages", sysconfig.get_path("stdlib"), "<frozen ")


class _StdoutAside:
    """In here stdout is stderr, for every thread but a main thread that is not in here itself.

    `redirect_stdout` is for the whole process, and in two threads at once it can leave stdout aside for good.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._real = threading.Lock(), Counter[int](), sys.stdout

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._real, sys.stdout = sys.stdout, cast(TextIO, self)
            self._inside[threading.get_ident()] += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= Counter([threading.get_ident()])  # and those at 0 are gone
            if not self._inside:
                sys.stdout = self._real

    def __getattr__(self, name: str) -> Any:
        here = threading.get_ident()
        outside = here == threading.main_thread().ident and here not in self._inside
        return getattr(self._real if outside else sys.stderr, name)


STDOUT_ASIDE = _StdoutAside()


def is_callable_spec(spec: str) -> bool:
    """Whether it is written as `file.py:name` or `package.module:name`.

    >>> is_callable_spec("net.py:build"), is_callable_spec("scans/train"), is_callable_spec("pkg.nets:Small")
    (True, False, True)
    """
    place, colon, name = spec.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or _is_module_name(place))


def load_callable(spec: str, error: type[TaskError], registered: Sequence[str] = ()) -> Callable[..., Any]:
    """Load the function or class that a spec names; raises `error` when the file, the name or the code fails.

    Where there is no such module, one of the `registered` names may have been meant.
    """
    place, _, name = spec.rpartition(":")
    module = _load_file(Path(place), error) if place.endswith(".py") else _load_module(place, error, registered)
    function = getattr(module, name, None)
    if function is None:
        public = [public for public in vars(module) if not public.startswith("_")]
        raise error(f"{place} has no {name!r}", remedy=near(name, public) or "name a function that is in it")
    if not callable(function):
        raise error(f"{spec} is a {type(function).__name__}", remedy="name a function or a class")
    return function


def call(what: str, function: Callable[..., Any], args: Mapping[str, Any], error: type[TaskError]) -> Any:
    """`function(**args)`; raises `error` when it does not take these arguments, or fails."""
    with contextlib.suppress(ValueError):  # some builtins have no signature
        signature = inspect.signature(function)
        try:
            signature.bind(**args)
        except TypeError as fault:
            unknown = next((name for name in args if name not in signature.parameters), "")
            meant = near(unknown, signature.parameters)
            remedy = f"{meant} It takes {signature}" if meant else f"it takes {signature}"
            raise error(f"{what}: {fault}", remedy=remedy) from None
    with faults_of(what, error):
        return function(**args)


@contextlib.contextmanager
def faults_of(what: str, error: type[TaskError], remedy: str = "") -> Iterator[None]:
    """Whatever user code raises in here becomes one sentence: what, file and line, exception."""
    try:
        with STDOUT_ASIDE:
            yield
    except CkptswapError:
        raise
    except SystemExit as fault:
        if fault.code in (EXIT_INTERRUPTED, EXIT_TERMINATED):  # somebody stops us: not the code's fault
            raise
        raise error(f"{what} called sys.exit({fault.code!r}){_place(fault)}", remedy=remedy) from None
    except Exception as fault:
        raise error(f"{what} failed{_place(fault)}: {first_line(fault)}", remedy=remedy) from fault


def first_line(fault: BaseException) -> str:
    """An exception's class and first line, without colour codes, at most 300 characters.

    >>> first_line(ValueError("a\\nb"))
    'ValueError: a'
    """
    lines = _ANSI.sub("", str(fault)).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0]}"[:300] if lines else type(fault).__name__


def code_hash(spec: str | None) -> str | None:
    """SHA-256 of the file behind `file.py:name`; None for anything else (a package has a version of its own)."""
    place = (spec or "").rpartition(":")[0]
    if not place.endswith(".py") or not os.path.isfile(place):
        return None
    return hashlib.sha256(Path(place).read_bytes()).hexdigest()


def loaded_from(spec: str) -> ModuleType | None:
    """The module that the callable of a spec was loaded from; None for what was not, or is none."""
    place = spec.rpartition(":")[0]
    if place.endswith(".py") and os.path.isfile(place):
        return sys.modules.get(_module_name(Path(place)))
    return sys.modules.get(place)


def _place(fault: BaseException) -> str:
    """' at file:line' in the user's own code, the innermost one; '' where none of it was running."""
    if isinstance(fault, SyntaxError) and fault.filename:
        return f" at {fault.filename}:{fault.lineno}"
    frames = traceback.extract_tb(fault.__traceback__)
    users = [frame for frame in frames if not any(part in frame.filename for part in _NOT_USERS)]
    return f" at {users[-1].filename}:{users[-1].lineno}" if users else ""


def _is_module_name(text: str) -> bool:
    return bool(text) and all(part.isidentifier() for part in text.split("."))


def _load_file(path: Path, error: type[TaskError]) -> ModuleType:
    """A file as a module under a name of its own, loaded once for each content."""
    if not path.is_file():
        raise error(f"there is no file {path}", remedy="check the path; it is relative to the current folder")
    full, name = path.resolve(), _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    _make_importable(full.parent)
    spec = importlib.util.spec_from_file_location(name, full)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with faults_of(str(path), error):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: Path) -> str:
    full = path.resolve()
    digest = hashlib.sha256(str(full).encode() + full.read_bytes()).hexdigest()[:16]
    return f"ckptswap_user_{path.stem}_{digest}"


def _load_module(name: str, error: type[TaskError], registered: Sequence[str]) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        with faults_of(name, error):
            return importlib.import_module(name)
    except error as failure:
        cause = failure.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            remedy = near(name, registered) or "install it, or write file.py:name"
            raise error(f"there is no module {cause.name!r}", remedy=remedy) from None
        raise


def _make_importable(folder: Path) -> None:
    """What lies beside the user's file can be imported, as if Python had been started there; shadows nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
