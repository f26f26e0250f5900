"""A web server for tests that serves ranges, counts what it sends, and misbehaves when it is told to.

`python tests/far_server.py FOLDER` serves a folder by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class Sparse:
    """A large file that is zeros behind its head."""

    head: bytes
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size)
        raw = self.head[start:stop]
        return raw + bytes(stop - start - len(raw))


Content = bytes | Sparse


class Asked(NamedTuple):
    """A request as it was received, and how many bytes were sent for it."""

    path: str
    range: str | None
    headers: Mapping[str, str]
    sent: int


Reply = Callable[[BaseHTTPRequestHandler, bytes | Sparse], int]
"""Answers a request in a way of its own, and says how many bytes of the file it sent."""


@dataclass
class FarServer:
    """`files` by path; `asked` is what came; the first of `replies` answers the next request, `always` all."""

    files: dict[str, Content] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    always: Reply | None = None
    etag: bool = True
    url: str = ""
    _asked: list[Asked] = field(default_factory=list)
    _idle: threading.Condition = field(default_factory=threading.Condition)
    _busy: int = 0

    @property
    def asked(self) -> list[Asked]:
        """What came, once all of it is answered."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._busy, timeout=10)
            return self._asked

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.asked)

    def clear(self) -> None:
        self.asked.clear()

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        with self._idle:
            self._busy += 1
        sent = 0
        try:
            sent = self._answered(handler)
        finally:
            with self._idle:
                self._asked.append(Asked(handler.path, handler.headers.get("Range"), dict(handler.headers), sent))
                self._busy -= 1
                self._idle.notify_all()

    def _answered(self, handler: BaseHTTPRequestHandler) -> int:
        path = unquote(urlsplit(handler.path).path)
        own = self.replies.pop(0) if self.replies else self.always
        if isinstance(listing := self.files.get(path.rstrip("/")), Listing):
            query = parse_qs(urlsplit(handler.path).query)
            return send(
                handler, 200, listing.xml(query.get("prefix", [""])[0]), {"Content-Type": "application/xml"}
            )
        if path in self.files:
            return (own or self.ranged)(handler, self.files[path])
        return (own or status(404))(handler, b"")

    def ranged(self, handler: BaseHTTPRequestHandler, content: Content, **headers: str) -> int:
        """The part that was asked for, as servers give it."""
        told = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if told and int(told[1]) >= len(content):
            return status(416, **{"Content-Range": f"bytes */{len(content)}"})(handler, content)
        tag = etag_of(content)
        if "/resolve/" in handler.path:
            headers["X-Repo-Commit"] = COMMIT
        if told and handler.headers.get("If-Range", tag) == tag:
            start, last = int(told[1]), min(int(told[2] or len(content)), len(content) - 1)
            there = {"Content-Range": f"bytes {start}-{last}/{len(content)}", **headers}
            return send(handler, 206, content[start : last + 1], there | ({"ETag": tag} if self.etag else {}))
        return send(handler, 200, content[: len(content)], {"ETag": tag, **headers} if self.etag else headers)


def etag_of(content: Content) -> str:
    """A tag that changes with the content."""
    raw = content.head if isinstance(content, Sparse) else content
    return f'"{hashlib.md5(raw).hexdigest()}"'


def send(handler: BaseHTTPRequestHandler, code: int, raw: bytes, headers: Mapping[str, str]) -> int:
    handler.send_response(code)
    for name, value in ({"Content-Length": str(len(raw))} | dict(headers)).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(raw)
    return len(raw)


def status(code: int, **headers: str) -> Reply:
    """An answer without a file, such as 503."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(handler: BaseHTTPRequestHandler, content: Content) -> int:
        return send(handler, code, b"", named) * 0

    return reply


def wrong(code: int = 206, *, cut: int | None = None, **headers: str | None) -> Reply:
    """The part that was asked for with other headers (None: without it), or only so many bytes of it."""

    def reply(handler: BaseHTTPRequestHandler, content: Content) -> int:
        told = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", "bytes=0-0"))
        assert told
        start, last = int(told[1]), min(int(told[2]), len(content) - 1)
        raw = content[start : last + 1] if code == 206 else content[: len(content)]
        own = {"Content-Range": f"bytes {start}-{last}/{len(content)}"} if code == 206 else {}
        own |= {"Content-Length": str(len(raw)), "ETag": etag_of(content), "Connection": "close"}
        given = own | {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send_response(code)
        for name, value in given.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw[:cut])
        handler.close_connection = True
        return len(raw[:cut])

    return reply


@contextmanager
def serving(files: Mapping[str, Content] | None = None) -> Iterator[FarServer]:
    """A server on this machine, as long as the block lasts."""
    far = FarServer(dict(files or {}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            far.reply(self)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *who: object) -> None:
            """Who hangs up is no fault of the server's."""

    with Server(("127.0.0.1", 0), Handler) as server:
        far.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield far
        finally:
            server.shutdown()
            thread.join()


def hub_files(
    repo: str, files: Mapping[str, bytes], *, commit: str = COMMIT, large: int = 1000
) -> dict[str, bytes]:
    """What Hugging Face's hub serves of a model of these files: what is said of it, and each file; the large ones
    are known by their SHA-256."""
    large_ones = [name for name, raw in files.items() if len(raw) > large]
    siblings = [
        {"rfilename": name, "size": len(raw), "blobId": hashlib.sha1(raw).hexdigest()}
        | ({"lfs": {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw), "pointerSize": 1}}
            if name in large_ones else {})
        for name, raw in files.items()
    ]  # fmt: skip
    info = json.dumps({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings}).encode()
    told = {f"/api/models/{repo}": info}
    told |= {f"/api/models/{repo}/revision/{revision}": info for revision in ("main", commit)}
    return told | {f"/{repo}/resolve/{commit}/{name}": raw for name, raw in files.items()}


def bucket_files(bucket: str, files: Mapping[str, bytes]) -> dict[str, Content]:
    """What S3 serves of a bucket: its files, and by the bucket's own path the list of them."""
    return {f"/{bucket}/{name}": raw for name, raw in files.items()} | {f"/{bucket}": Listing(bucket, dict(files))}


@dataclass
class Listing(Sparse):
    """What a bucket holds, as S3 lists it below a prefix."""

    def __init__(self, bucket: str, files: Mapping[str, bytes]) -> None:
        super().__init__(b"", 0)
        self.bucket, self.files = bucket, files

    def xml(self, prefix: str) -> bytes:
        held = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag>"
            f"<Size>{len(raw)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for name, raw in self.files.items()
            if name.startswith(prefix) and "/" not in name[len(prefix) :]
        )
        return (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{self.bucket}</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>{held}</ListBucketResult>"
        ).encode()


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    own = read_folder(Path(sys.argv[1]))
    every: dict[str, Content] = {f"/{name}": raw for name, raw in own.items()}
    for above in {name.partition("/")[0] for name in own if "/" in name}:
        inside = {name.partition("/")[2]: raw for name, raw in own.items() if name.startswith(f"{above}/")}
        every |= hub_files(f"org/{above}", inside)
    every |= bucket_files("nets", own)
    with serving(every) as far:
        print(far.url, flush=True)
        reply = far.reply

        def told(handler: BaseHTTPRequestHandler) -> None:
            reply(handler)
            last = far.asked[-1]
            print(last.path, last.range, last.sent, last.headers.get("Authorization"), file=sys.stderr, flush=True)

        far.reply = told  # type: ignore[method-assign]
        threading.Event().wait()
