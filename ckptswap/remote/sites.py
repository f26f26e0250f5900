"""`https://…`: files of web servers as checkpoints; files beside one, such as shards, by their own addresses."""

import re
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import with_key
from ckptswap.errors import FileError
from ckptswap.formats.format import CheckpointSource
from ckptswap.formats.opening import open_in
from ckptswap.remote.address import path_of, public, split_key, whole
from ckptswap.remote.answers import NotThereError
from ckptswap.remote.far import FarFile
from ckptswap.remote.web import WebAddress, WebReader

ADVICE = "name it with its token (https://HOST/…?…), or put the user and password into ~/.netrc"
_HUB_PAGE = re.compile(
    r"https://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/(?:blob|tree)/([^/]+)(?:/(.+))?)?/?"
)
"""What somebody copies from the browser who looks at a model of the hub."""


@dataclass(frozen=True)
class WebFolder:
    """What lies beside a file of a web server, which lists nothing; what was looked for is kept until asked."""

    address: str
    found: dict[str, FarFile] = field(default_factory=dict)

    path = None

    @property
    def name(self) -> str:
        return path_of(self.address).rpartition("/")[0]

    @property
    def own(self) -> str:
        """What the file itself is called; '' where the address is a folder's."""
        return unquote(urlsplit(self.address).path.rpartition("/")[2])

    def names(self) -> list[str]:
        return []

    def holds(self, name: str) -> bool:
        try:
            if name not in self.found:
                self.found[name] = self.open(name)
        except NotThereError:
            return False
        return True

    def stored(self, name: str) -> int:
        with closing(self.open(name)) as file:
            return file.size

    def open(self, name: str) -> FarFile:
        if name in self.found:
            return self.found.pop(name)
        url, user, _ = whole(self.address)
        parts = urlsplit(url)
        # Its own address is asked for as it was written, which may be signed; others are spelt by us.
        path = parts.path if name == self.own else f"{parts.path.rpartition('/')[0]}/{quote(name)}"
        there = parts._replace(path=path).geturl()
        return FarFile(WebReader(path_of(there), lambda: WebAddress(there, user=user), advice=ADVICE))


def open_site(address: str) -> Checkpoint:
    """Open a file of a web server. Raises `FileError` where it cannot be had, `FormatError` for what it holds,
    `DependencyError` without the extra `remote`."""
    place, key = split_key(public(address))
    _, _, shown = whole(place)
    if page := _HUB_PAGE.fullmatch(shown):
        revision, file = (page[2] and f"@{page[2]}") or "", (page[3] and f"/{page[3]}") or ""
        raise FileError(f"{shown} is a page about a model", remedy=f"write hf://{page[1]}{revision}{file}")
    folder = WebFolder(place)
    if not folder.own:
        remedy = "name one of its files (of shards, their model.safetensors.index.json)"
        raise FileError(f"{shown} is a folder, which a web server does not list", remedy=remedy)
    checkpoint = open_in(folder, folder.own, key)
    checkpoint.path = with_key(shown, key)
    return checkpoint


def _source(scheme: str) -> CheckpointSource:
    return CheckpointSource(
        lambda rest: open_site(f"{scheme}:{rest}"), lambda rest: public(f"{scheme}:{rest}")[len(scheme) + 1 :]
    )


HTTPS, HTTP = _source("https"), _source("http")
