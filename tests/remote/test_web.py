"""What a web server may do to us: each ends in the file's own bytes, or in one sentence."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from far_server import Content, FarServer, Reply, Sparse, serving, status, wrong

import ckptswap as cs
from ckptswap.entries import Tensor, placed
from ckptswap.errors import FileError
from ckptswap.formats.safetensors import encode_header
from ckptswap.remote import web
from ckptswap.remote.web import TRIES, WHOLE_MOST, WebAddress, WebReader
from ckptswap.sources import ConstantSource

RAW = bytes(np.random.default_rng(0).integers(0, 256, 200_000, np.uint8))


def fetched(far: FarServer, size: int = 100, offset: int = 150_000) -> bytes:
    return WebReader("far", lambda: WebAddress(f"{far.url}/a")).fetch(size, offset)


def refusal(far: FarServer, *replies: Reply, again: Reply | None = None) -> str:
    far.replies[:], far.always = replies, again
    with pytest.raises(FileError) as caught:
        fetched(far)
    assert "127.0.0.1" not in str(caught.value)  # who asks knows what it is called
    return str(caught.value)


@pytest.fixture(autouse=True)
def serves(far: FarServer) -> None:
    far.files["/a"] = RAW


def test_a_range_is_fetched_and_no_more(far: FarServer) -> None:
    assert fetched(far) == RAW[150_000:150_100]
    assert [asked.range for asked in far.asked] == ["bytes=0-65535", "bytes=150000-150099"]
    assert far.asked[1].headers["If-Range"].startswith('"')
    assert far.sent == 65536 + 100


@pytest.mark.parametrize("cut", [0, 1, 30_000])
def test_a_connection_that_drops_goes_on_where_it_was(far: FarServer, waits: list[float], cut: int) -> None:
    far.replies[:] = [wrong(), wrong(cut=cut), wrong(cut=cut), wrong()]
    assert fetched(far, 100_000, 50_000) == RAW[50_000:150_000]
    assert [asked.range for asked in far.asked[1:]] == [f"bytes={50_000 + at}-149999" for at in (0, cut, 2 * cut)]
    assert waits == [1.0, 2.0]


def test_what_always_drops_is_given_up(far: FarServer, waits: list[float]) -> None:
    said = refusal(far, again=wrong(cut=3))
    assert said == f"far cannot be fetched (the connection broke off; asked {TRIES} times): try again later"
    assert len(far.asked) == TRIES
    assert waits == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_waited_for_as_the_server_asks(far: FarServer, waits: list[float], code: int) -> None:
    far.replies[:] = [status(code, Retry_After="7"), status(code)]
    assert fetched(far) == RAW[150_000:150_100]
    assert waits == [7.0, 2.0]
    assert f"the server answers {code}; asked {TRIES} times" in refusal(far, again=status(code, Retry_After="0"))


def test_nobody_waits_for_an_hour(far: FarServer, waits: list[float]) -> None:
    said = refusal(far, status(429, Retry_After="3600"))
    assert said == "far cannot be fetched (the server answers 429; it asks to wait 3,600 s): try again later"
    assert waits == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (401, "far is not given to strangers (401): say who you are"),
        (403, "far is refused to you (403): ask its owner for access"),
        (404, "far does not exist (404): check the address"),
        (410, "far is gone (410)"),
        (418, "far cannot be had: the server answers 418: check the address"),
        (501, "far cannot be had: the server answers 501: try again later"),
    ],
)
def test_a_refusal_is_not_asked_for_twice(far: FarServer, code: int, said: str) -> None:
    assert refusal(far, again=status(code)).startswith(said)
    assert len(far.asked) == 1


def test_a_small_file_is_read_whole_where_ranges_are_ignored(far: FarServer) -> None:
    far.always = wrong(200)
    assert fetched(far) == RAW[150_000:150_100]
    assert len(far.asked) == 1


def test_a_large_one_is_not(far: FarServer) -> None:
    far.files["/a"] = Sparse(b"", 1 << 30)
    said = refusal(far, again=wrong(200, cut=1 << 16))
    takes = "the server of far sends no parts of files, and the file takes 1,073,741,824 bytes"
    assert said == f"{takes}: download it, and name the copy"
    assert WHOLE_MOST < 1 << 30
    assert "it does not say how long the file is" in refusal(
        far, again=wrong(200, cut=1 << 16, Content_Length=None)
    )


LIES = [
    (wrong(Content_Range="bytes 0-65535/*"), "does not say which bytes it sends, or how many there are"),
    (wrong(Content_Range="bytes 0-65535/" + "9" * 30), "does not say which bytes it sends, or how many there are"),
    (wrong(Content_Range=None), "does not say which bytes it sends, or how many there are"),
    (wrong(Content_Range="bytes 7-65542/200000"), "sends 65,536 bytes from 7 on, not what was asked for"),
    (wrong(Content_Range="bytes 0-99/200000"), "sends 100 bytes from 0 on, not what was asked for"),
    (wrong(Content_Range="bytes 0-65535/900"), "sends bytes 0 to 65,535 of a file of 900"),
    (wrong(Content_Encoding="gzip"), "packs what it sends (gzip)"),
    (wrong(Content_Range="bytes 0-65535/65536", Content_Length="200000"), "cannot be fetched"),
]


@pytest.mark.parametrize(("lie", "said"), LIES, ids=[said for _, said in LIES])
def test_a_server_that_lies_is_not_believed(far: FarServer, lie: Reply, said: str) -> None:
    assert said in refusal(far, again=lie)


def test_another_stretch_than_was_asked_for_is_not_taken(far: FarServer) -> None:
    said = refusal(far, wrong(), wrong(Content_Range="bytes 150001-150100/200000"))
    assert "sends 100 bytes from 150,001 on, not what was asked for" in said


def test_more_than_was_promised_is_not_taken(far: FarServer) -> None:
    """A body without a length goes on until the server hangs up."""
    beyond = wrong(Content_Range="bytes 150000-150099/70000")
    assert "sends bytes 150,000 to 150,099 of a file of 70,000" in refusal(far, wrong(), beyond)

    def longer(handler: BaseHTTPRequestHandler, content: Content) -> int:
        sent = wrong(Content_Length=None)(handler, content)
        handler.wfile.write(b"more")
        return sent

    assert "sends more than the 65,536 bytes that it speaks of" in refusal(far, longer)


CHANGED = "far changed while it was being read: run again when it rests"


def test_a_file_that_changes_between_two_requests_is_found_out(far: FarServer) -> None:
    reader = WebReader("far", lambda: WebAddress(f"{far.url}/a"))
    far.files["/a"] = RAW[::-1]
    with pytest.raises(FileError, match=CHANGED):
        reader.fetch(10, 100_000)
    far.files["/a"] = RAW[:1000]
    with pytest.raises(FileError, match=CHANGED):
        reader.fetch(10, 100_000)
    assert "If-Range" in far.asked[-1].headers


def test_also_by_a_server_that_knows_no_if_range(far: FarServer) -> None:
    assert refusal(far, wrong(), wrong(ETag='"other"')) == CHANGED
    assert refusal(far, wrong(ETag='W/"1"'), wrong(ETag='W/"2"')) == CHANGED
    assert "If-Range" not in far.asked[-1].headers  # which takes no weak one
    assert refusal(far, wrong(), wrong(Content_Range="bytes 150000-150099/300000")) == CHANGED
    assert refusal(far, wrong(ETag=None, Last_Modified="Mon"), wrong(ETag=None, Last_Modified="Tue")) == CHANGED


def test_also_in_the_middle_of_a_stretch(far: FarServer) -> None:
    assert refusal(far, wrong(), wrong(cut=10), wrong(ETag='"other"')) == CHANGED


def test_a_server_that_sends_no_parts_any_more(far: FarServer) -> None:
    assert "sends no parts of the file any more" in refusal(far, wrong(), wrong(200))


def test_an_empty_file_is_one(far: FarServer) -> None:
    far.files["/a"] = b""
    with pytest.raises(FileError, match="is empty"):
        cs.open(f"{far.url}/a")


def test_who_leads_elsewhere_does_not_pass_on_who_the_user_is(far: FarServer) -> None:
    with serving({"/b": RAW}) as other:
        far.always = status(302, Location=f"{other.url}/b")
        for asked in (WebAddress(f"{far.url}/a", "Bearer secret"), WebAddress(f"{far.url}/a", user="ann:secret")):
            reader = WebReader("far", lambda asked=asked: asked)  # type: ignore[misc]
            assert reader.fetch(10, 100_000) == RAW[100_000:100_010]
            assert "Authorization" in far.asked[-1].headers
        assert len(far.asked) == 2  # where it leads is asked from then on
        assert all("Authorization" not in asked.headers for asked in other.asked)


def test_an_address_that_ran_out_is_asked_for_again(far: FarServer, waits: list[float]) -> None:
    with serving({"/b": RAW}) as other:
        far.always = status(302, Location=f"{other.url}/b")
        reader = WebReader("far", lambda: WebAddress(f"{far.url}/a"))
        other.replies[:] = [status(403)]
        assert reader.fetch(10, 100_000) == RAW[100_000:100_010]
        assert len(far.asked) == 2
        assert waits == [0.0]


def test_who_leads_on_and_on_is_left(far: FarServer) -> None:
    assert "leads on and on, more than 5 times" in refusal(far, again=status(302, Location="/a"))
    assert "leads to what is no address of a web server" in refusal(
        far, again=status(302, Location="file:///etc/passwd")
    )


def test_never_from_https_to_http() -> None:
    from types import SimpleNamespace

    import requests

    [judged] = web._session(requests).hooks["response"]
    judged(SimpleNamespace(url="http://host/a", is_redirect=True, headers={"location": "http://host/b"}))
    with pytest.raises(requests.exceptions.InvalidSchema):
        judged(SimpleNamespace(url="https://host/a", is_redirect=True, headers={"location": "http://host/a"}))


def test_a_server_that_trickles_is_given_up(far: FarServer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000_000, 1000))
    monkeypatch.setattr(web.CLOCK, "now", lambda: float(next(now)))
    assert "the server sends too slowly" in refusal(far)


def test_nobody_there_is_said_at_once(waits: list[float]) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(FileError, match=re.escape("nobody answers there")):
        cs.open(f"{url}/a.pt")
    assert waits == []


def test_a_gigabyte_costs_its_header(far: FarServer) -> None:
    """A sparse file of 1 GB: what it holds, and one tensor of it."""
    shape = (1 << 20, 64)
    names = [f"layer.{at}.weight" for at in range(4)]
    tensors = [Tensor(name, shape, "F32", ConstantSource(b"0000")) for name in names]
    offsets = {name: (at << 28, (at + 1) << 28) for at, name in enumerate(names)}
    header = encode_header(placed(tensors, "big").values(), offsets, {})
    far.files["/big.safetensors"] = Sparse(header, len(header) + (1 << 30))
    with cs.open(f"{far.url}/big.safetensors") as big:
        assert big.nbytes == 1 << 30
        assert len(far.asked) == 1
        assert far.sent < 1 << 20
        row = bytearray(256)
        big["layer.3.weight"].source.read_into(memoryview(row), 0)
        assert far.sent < 1 << 20
