"""What a call tells while it works: notes, warnings, how far it is. Nobody hears it who does not listen."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol


class Progress(Protocol):
    """Tells how far the work is: `remark` belongs behind a bar, `below` are lines under it."""

    def __call__(self, done: int, total: int | None, remark: str = "", below: Sequence[str] = ()) -> None: ...


class Listener:
    """Who is told; this one keeps everything to itself."""

    def note(self, text: str) -> None:
        """Hear what was done unasked."""

    def warn(self, text: str) -> None:
        """Hear a warning."""

    def say(self, text: str) -> None:
        """Hear a line that is neither."""

    def progress(self, what: str, *, unit: str = "") -> AbstractContextManager[Progress]:
        """Give what is told how far a piece of work is."""
        return nullcontext(lambda done, total, remark="", below=(): None)

    def stopping(self) -> AbstractContextManager[Any]:
        """Give what a sweep looks at to see whether it is to end (`ckptswap.sweep.stopping.Stop`), or None."""
        return nullcontext()


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_otherwise = Listener()


def listener() -> Listener:
    """Return who listens now."""
    return _listener.get() or _otherwise


def listens_otherwise(who: Listener) -> None:
    """Let somebody hear what is told where nobody else listens: whoever looks at a notebook."""
    global _otherwise
    _otherwise = who


@contextmanager
def listening(who: Listener) -> Iterator[None]:
    """Let somebody hear what is told meanwhile.

    >>> class Loud(Listener):
    ...     def warn(self, text: str) -> None:
    ...         print(text)
    >>> with listening(Loud()):
    ...     listener().warn("a word")
    a word
    """
    token = _listener.set(who)
    try:
        yield
    finally:
        _listener.reset(token)


def note(texts: Iterable[str]) -> None:
    """Tell what was done unasked."""
    for text in texts:
        listener().note(text)


def warn(texts: Iterable[str]) -> None:
    """Tell warnings."""
    for text in texts:
        listener().warn(text)
