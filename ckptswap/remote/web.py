"""Files of web servers, read by ranges.

Every answer is held against the first: a file that changes meanwhile, or a server that sends something else, is
found out. What fails on its way is asked for again, a few times.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ckptswap.errors import FileError
from ckptswap.registry import library
from ckptswap.remote import answers
from ckptswap.remote.answers import Known
from ckptswap.remote.far import BLOCK
from ckptswap.storage import Version
from ckptswap.version import __version__

WHOLE_MOST = 64 << 20  # bytes of a file that is fetched whole, as its server knows no ranges
TRIES = 5
WAIT_MOST = 60.0  # seconds between two tries; a server that wants more is not waited for
REDIRECTS_MOST = 5
CONNECT, SILENCE = 10.0, 30.0  # seconds until a server has to answer, and between two pieces of its answer
SLOWEST = 10_000  # bytes a second
PIECE = 1 << 18
_RUN_OUT = frozenset([400, 401, 403, 404, 410])
"""What is answered to an address that was valid for some time only."""
_NOBODY = ("NewConnectionError", "NameResolutionError")
_AGAIN = frozenset([408, 425, 429, 500, 502, 503, 504])


@dataclass
class Clock:
    """The time, as tests may have it otherwise."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


class WebAddress(NamedTuple):
    """Where to ask for a file, and as whom: by what stands in `Authorization`, or by `user:password`."""

    url: str
    authorization: str | None = None
    user: str = ""


class _Again(Exception):
    """Something on the way failed that may not fail again; `wait` is what the server asks for."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class WebReader:
    """Fetches ranges of one file. `asked` says where it lies just now: an address may be valid for minutes only.

    Raises `FileError` where it cannot be had; `NotThereError` where the server has no such file for this user.
    """

    def __init__(self, name: str, asked: Callable[[], WebAddress], *, sha256: str | None = None, advice: str = "",
                 version: str | None = None) -> None:  # fmt: skip
        self.name, self._asked, self._advice = name, asked, advice
        self._requests: ModuleType = library("requests")
        self._faults = library("urllib3.exceptions").HTTPError
        self._session: Any = None
        self._process = 0
        self._there: str | None = None
        self._known: Known | None = None
        self._whole: bytes | None = None
        self.size = 0
        self.head = self._retried(lambda: self._first(BLOCK))
        self.version = Version(sha256, version or (self._known.text if self._known else None))

    def fetch(self, size: int, offset: int) -> bytes:
        """Exactly so many bytes from there on."""
        if self._whole is not None:
            return self._whole[offset : offset + size]
        raw = bytearray()
        self._retried(lambda: self._rest(raw, size, offset))
        return bytes(raw)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = self._whole = None

    def _first(self, size: int) -> bytes:
        """The beginning, and with it what the file is; the whole of a small one where ranges are not known."""
        with self._answer(size, 0) as answer:
            if answer.status_code == 416:  # there is nothing in it
                self._known = answers.known_of(answer.headers, 0)
                return b""
            if answer.status_code == 200:
                return self._all_of(answer)
            part = answers.part_of(answer.headers, self.name)
            if part.start or part.size != min(size, part.known.size):
                answers.refuse(
                    self.name, f"sends {part.size:,} bytes from {part.start:,} on, not what was asked for"
                )
            raw = self._body(answer, part.size)
            self._known, self.size = part.known, part.known.size
            return raw

    def _all_of(self, answer: Any) -> bytes:
        size = answers.length_of(answer.headers)
        if size is None or size > WHOLE_MOST:
            takes = "it does not say how long the file is" if size is None else f"the file takes {size:,} bytes"
            raise FileError(f"the server of {self.name} sends no parts of files, and {takes}",
                            remedy="download it, and name the copy")  # fmt: skip
        self._whole = self._body(answer, size)
        self._known, self.size = answers.known_of(answer.headers, size), size
        return self._whole

    def _rest(self, raw: bytearray, size: int, offset: int) -> None:
        """What is still wanted of a stretch, after `raw`, which has what came before something failed."""
        start, left = offset + len(raw), size - len(raw)
        with self._answer(left, start) as answer:
            if answer.status_code != 206:
                self._refuse_changed(answer.status_code == 200 and self._is_same(answer))
            part = answers.part_of(answer.headers, self.name)
            if part.known != self._known:
                self._refuse_changed(False)
            if (part.start, part.size) != (start, left):
                answers.refuse(
                    self.name, f"sends {part.size:,} bytes from {part.start:,} on, not what was asked for"
                )
            for piece in self._pieces(answer, left):
                raw += piece

    def _is_same(self, answer: Any) -> bool:
        size = answers.length_of(answer.headers)
        return size is not None and answers.known_of(answer.headers, size) == self._known

    def _refuse_changed(self, is_same: bool) -> None:
        if is_same:
            answers.refuse(self.name, "sends no parts of the file any more")
        raise FileError(f"{self.name} changed while it was being read", remedy="run again when it rests")

    @contextmanager
    def _answer(self, size: int, offset: int) -> Iterator[Any]:
        """The server's answer, whose body is not read yet; raises `FileError` where it says that there is none."""
        asked, there = self._asked(), self._there
        headers = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        etag = self._known.etag if self._known else None
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
        auth = _auth(asked) if there is None or urlsplit(there)[:2] == urlsplit(asked.url)[:2] else None
        faults = self._requests.exceptions
        try:
            answer = self._opened().get(there or asked.url, headers=headers, auth=auth, stream=True,
                                        timeout=(CONNECT, SILENCE))  # fmt: skip
        except faults.TooManyRedirects:
            answers.refuse(self.name, f"leads on and on, more than {REDIRECTS_MOST} times")
        except (faults.InvalidSchema, faults.InvalidURL, faults.MissingSchema):
            answers.refuse(self.name, "leads to what is no address of a web server")
        except faults.SSLError:
            remedy = "check the address; REQUESTS_CA_BUNDLE names certificates of your own"
            raise FileError(f"the server of {self.name} shows no valid certificate", remedy=remedy) from None
        except faults.RequestException as error:
            if self._known is None and any(word in repr(error) for word in _NOBODY):
                remedy = "check the address, and the way to it"
                raise FileError(f"{self.name} cannot be fetched (nobody answers there)", remedy=remedy) from None
            raise _Again(_reason(error)) from None
        with closing(answer):
            if there and answer.status_code in _RUN_OUT:
                self._there = None
                raise _Again("the address that it leads to is valid no more", 0.0)
            self._judge(answer)
            self._there = answer.url if answer.history else there
            yield answer

    def _judge(self, answer: Any) -> None:
        status = answer.status_code
        if status in _AGAIN:
            raise _Again(f"the server answers {status}", answers.wait_of(answer.headers, CLOCK.now()))
        if status not in (200, 206, 416):
            answers.refuse_status(self.name, status, self._advice)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            answers.refuse(self.name, f"packs what it sends ({answer.headers['Content-Encoding'][:20]})")

    def _body(self, answer: Any, size: int) -> bytes:
        return b"".join(self._pieces(answer, size))

    def _pieces(self, answer: Any, size: int) -> Iterator[bytes]:
        """An answer's bytes, exactly so many; raises `_Again` where they break off or trickle."""
        done, deadline = 0, CLOCK.now() + SILENCE + size / SLOWEST
        try:
            while piece := answer.raw.read1(PIECE):
                if (done := done + len(piece)) > size:
                    answers.refuse(self.name, f"sends more than the {size:,} bytes that it speaks of")
                yield piece
                if CLOCK.now() > deadline:
                    raise _Again("the server sends too slowly")
        except (self._faults, OSError) as error:
            raise _Again(_reason(error)) from None
        if done < size:
            raise _Again(f"the connection ended after {done:,} of {size:,} bytes")

    def _retried(self, work: Callable[[], Any]) -> Any:
        for tried in count(1):
            try:
                return work()
            except _Again as error:
                wait = 0.5 * 2**tried if error.wait is None else error.wait
                if tried == TRIES or wait > WAIT_MOST:
                    often = f"asked {tried} times" if tried > 1 else f"it asks to wait {wait:,.0f} s"
                    raise FileError(f"{self.name} cannot be fetched ({error}; {often})",
                                    remedy="try again later") from None  # fmt: skip
                self._opened().close()  # a connection that failed once is not used again
                CLOCK.sleep(wait)
        raise AssertionError  # a count has no end

    def _opened(self) -> Any:
        """The session: one's own in a process that was forked."""
        if self._session is None or self._process != os.getpid():
            self._session, self._process = _session(self._requests), os.getpid()
        return self._session


def _session(requests: ModuleType) -> Any:
    """A session that is led to other servers without what says who the user is, and never from https to http."""

    def judged(answer: Any, **how: Any) -> None:
        target = session.get_redirect_target(answer)
        if target and answer.url.startswith("https:") and urlsplit(target).scheme == "http":
            raise requests.exceptions.InvalidSchema

    session = requests.Session()
    session.hooks["response"].append(judged)
    session.max_redirects = REDIRECTS_MOST
    session.headers["User-Agent"] = f"ckptswap/{__version__}"
    return session


def _auth(asked: WebAddress) -> Any:
    """What says who the user is, in the way that the library takes off where a server leads to another."""
    if asked.user:
        user, _, password = asked.user.partition(":")
        return unquote(user), unquote(password)
    if not asked.authorization:
        return None

    def signed(request: Any) -> Any:
        request.headers["Authorization"] = asked.authorization
        return request

    return signed


def _reason(error: Exception) -> str:
    """What failed, in a few words of ours: the library's own name the address, and what is secret in it."""
    name = type(error).__name__
    return {
        "ConnectTimeout": "the server does not answer",
        "ReadTimeout": "the server fell silent",
        "ReadTimeoutError": "the server fell silent",
        "ProtocolError": "the connection broke off",
        "IncompleteRead": "the connection broke off",
        "ConnectionError": "there is no connection to the server",
    }.get(name, f"the transfer failed, {name}")
