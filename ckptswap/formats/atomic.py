"""Writing a file so that its name holds either the old content or the new, never a part of it."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ckptswap.errors import FileError
from ckptswap.plainfiles import refuse_elsewhere

_STREAMS = ("/dev/", "/proc/")
_OWN = ("/dev/fd/", "/proc/self/fd/")
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raises `FileError` when something is in the way; `force` allows a file to be replaced, never a folder."""
    refuse_elsewhere(path)
    if os.path.isdir(path):
        raise FileError(f"{path} is a folder", remedy="name a file to write")
    if os.fspath(path) == "-" or is_stream(path) or (os.path.exists(path) and not os.path.isfile(path)):
        raise FileError(f"{path} is not a plain file", remedy="name a file to write")
    if os.path.lexists(path) and not force:
        raise FileError(f"{path} exists already", remedy="write elsewhere with -o, or replace it with --force")
    if not os.path.isdir(path.parent):
        raise FileError(f"{path} cannot be written: there is no folder {path.parent}", remedy="make it first")


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is to be written to and never replaced: a device, a pipe, or what the system keeps for a
    process (`/dev/stdout`, which may well be a file).

    >>> is_stream("/dev/null"), is_stream("/dev/stdout"), is_stream("a.json")
    (True, True, False)
    """
    place = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
    if f"{place}/".startswith(_STREAMS):
        return os.path.lexists(path) and not place.startswith("/dev/shm/")
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _descriptor(path: str) -> int:
    """A descriptor of this process's own is used where it stands: opened anew, a file would be written from its
    beginning."""
    names = {"/dev/stdin": "0", "/dev/stdout": "1", "/dev/stderr": "2"}
    number = names.get(path) or next((path.removeprefix(own) for own in _OWN if path.startswith(own)), "")
    if number.isdecimal():
        return os.dup(int(number))
    if stat.S_ISBLK(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is a disk")
    return os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike[str], *, force: bool = True, made_of: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` when the block ends well, and leaves no trace when it does not.

    Written beside its target, fsynced, renamed. It has the mode of the file that it replaces, or that of a new
    file, cut to what the files may that it is `made_of`: what was private stays so. Without `force` of several at
    once only one gets the name. Raises `FileError` when something is in the way or the disk is full.
    """
    target = Path(path)
    refuse_existing(target, force=force)
    beside = target.parent / f".{target.name[:60]}.{os.urandom(4).hex()}.part"
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _mode(made_of))
        with open(handle, "wb") as file:
            if os.path.exists(target):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(target).st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(target, force=force)
        (os.replace if force else _take_name)(beside, target)
        sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{target} could not be written ({reason})", remedy="nothing was left behind") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _mode(made_of: Iterable[str | os.PathLike[str]]) -> int:
    """The mode to ask for, of which the system takes the umask away. The owner may always read and write."""
    mode = 0o666
    for path in made_of:
        with contextlib.suppress(OSError):
            mode &= os.stat(path).st_mode
    return mode | 0o600


def _take_name(beside: Path, target: Path) -> None:
    """Give a finished file its name unless somebody else has it by now."""
    try:
        os.link(beside, target)
    except FileExistsError:
        refuse_existing(target, force=False)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No links here: hold the name by an empty file, then take it.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(beside, target)


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike[str], text: str, *, force: bool = True) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_file(path, force=force) as file:
        file.write(text.encode("utf-8"))


def put(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write a result into a file, atomically, or to a stream, never replaced. Raises `FileError`."""
    if not is_stream(path):
        with atomic_file(path) as file:
            file.write(content)
        return
    try:
        with open(_descriptor(os.fspath(path)), "wb") as stream:
            stream.write(content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"{path} takes no result ({error.strerror or error})", remedy="name a file") from None
