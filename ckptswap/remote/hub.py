"""`hf://ORG/NAME[@REVISION][/FILE]`: models of Hugging Face's hub.

The hub says which files a commit has, and these are read by ranges; what its own cache on this machine has
already is read from there.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import with_key
from ckptswap.errors import FileError, near
from ckptswap.formats.companions import COUNT_MOST, SIZE_MOST, WEIGHTS
from ckptswap.formats.format import INDEX, CheckpointSource
from ckptswap.formats.opening import open_in
from ckptswap.registry import library
from ckptswap.remote.address import split_key
from ckptswap.remote.far import FarFile
from ckptswap.remote.web import WebAddress, WebReader
from ckptswap.storage import ByteSource, LocalFile, LocalFolder

ADVICE = "log in with `hf auth login` or set HF_TOKEN, and ask for access on the model's page"
TIMEOUT = 30.0
_ADDRESS = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/@]+))?(?:/(?P<file>.*))?",
    re.ASCII,
)
_OTHER_KINDS = ("datasets/", "spaces/", "buckets/", "kernels/")


@dataclass(frozen=True)
class HubFolder:
    """A folder of a commit: its files by their names, and what the hub says of each."""

    repo: str
    commit: str
    below: str
    files: Mapping[str, Any]

    path = None

    @property
    def name(self) -> str:
        return f"hf://{self.repo}@{self.commit}{self.below and f'/{self.below[:-1]}'}"

    def names(self) -> list[str]:
        return sorted(self.files)

    def holds(self, name: str) -> bool:
        return name in self.files

    def stored(self, name: str) -> int:
        return self.files[name].size or 0

    @property
    def beside_weights(self) -> list[str]:
        """The small files that are no weights, but for hidden ones."""
        small = [name for name, told in self.files.items() if (told.size or 0) <= SIZE_MOST]
        return [name for name in small if not name.startswith(".") and not name.endswith(WEIGHTS)][:COUNT_MOST]

    def open(self, name: str) -> ByteSource:
        if name not in self.files:
            remedy = near(name, self.files) or f"it has {', '.join(sorted(self.files)[:10]) or 'no files'}"
            raise FileError(f"{self.name} has no file {name!r}", remedy=remedy)
        hub, told = library("huggingface_hub"), self.files[name]
        cached = hub.try_to_load_from_cache(self.repo, self.below + name, revision=self.commit)
        if isinstance(cached, str):
            return LocalFile(cached)
        url = hub.hf_hub_url(self.repo, self.below + name, revision=self.commit, endpoint=_endpoint())
        sha256 = told.lfs.sha256 if told.lfs else None

        def asked() -> WebAddress:
            return WebAddress(url, library("huggingface_hub.utils").build_hf_headers().get("authorization"))

        return FarFile(WebReader(f"{self.name}/{name}", asked, sha256=sha256, advice=ADVICE, version=told.blob_id))


def open_model(address: str) -> Checkpoint:
    """Open a model of the hub, or one of its files. Raises `FileError` where it cannot be had, `FormatError` for
    what it holds, `DependencyError` without the extra `remote`."""
    place, key = split_key(address)
    told = _ADDRESS.fullmatch(place)
    if told is None or told["repo"].startswith(_OTHER_KINDS):
        raise _misnamed(address)
    repo, revision = told["repo"], unquote(told["revision"] or "") or None
    file = (told["file"] or "").rstrip("/")
    if library("huggingface_hub.constants").HF_HUB_OFFLINE:
        return _cached(repo, revision, file, key)
    name = f"hf://{repo}" + (f"@{revision}" if revision else "")
    hub = library("huggingface_hub").HfApi(endpoint=_endpoint())
    info = _judged(name, partial(hub.model_info, repo, revision=revision, files_metadata=True, timeout=TIMEOUT))
    every = {each.rfilename: each for each in info.siblings or ()}
    is_file = file in every or bool(file and not any(name.startswith(f"{file}/") for name in every))
    below = file[: file.rfind("/") + 1] if is_file else (f"{file}/" if file else "")
    here = {name[len(below) :]: told for name, told in every.items()
            if name.startswith(below) and "/" not in name[len(below) :]}  # fmt: skip
    folder = HubFolder(repo, info.sha, below, here)
    checkpoint = open_in(folder, file[len(below) :] if is_file else None, key)
    if (not is_file or file.endswith(INDEX)) and folder.beside_weights:
        checkpoint.home = HubHome(folder, has_index=checkpoint.format.startswith("sharded"))
    checkpoint.path = with_key(f"{folder.name}/{file[len(below) :]}" if is_file else folder.name, key)
    return checkpoint


def _misnamed(address: str) -> FileError:
    return FileError(f"{address} names no model of the hub", remedy="write hf://ORG/NAME[@REVISION][/FILE]")


def _cached(repo: str, revision: str | None, file: str, key: str | None) -> Checkpoint:
    """What the hub's cache has of a model, where the network is not to be asked."""
    hub, errors = library("huggingface_hub"), library("huggingface_hub.errors")
    try:
        home = Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except errors.HFValidationError:
        raise _misnamed(f"hf://{repo}") from None
    except errors.LocalEntryNotFoundError:
        remedy = "unset HF_HUB_OFFLINE, or fetch it by `hf download`"
        raise FileError(
            f"hf://{repo} is not in the hub's cache, and HF_HUB_OFFLINE is set", remedy=remedy
        ) from None
    place = home / file
    is_folder = place.is_dir()
    checkpoint = open_in(LocalFolder(place if is_folder else place.parent), None if is_folder else place.name, key)
    checkpoint.path = with_key(f"hf://{repo}@{home.name}{file and f'/{file}'}", key)
    return checkpoint


@dataclass(frozen=True)
class HubHome:
    """The folder of a model, of which the small files beside the weights are fetched into the hub's own cache once
    somebody wants them: a tokenizer, or what goes with a graft."""

    within: HubFolder
    has_index: bool

    @cached_property
    def folder(self) -> Path:
        """Raises `FileError` where they cannot be had."""
        library("huggingface_hub.utils").disable_progress_bars()
        at = partial(library("huggingface_hub").hf_hub_download, self.within.repo, revision=self.within.commit)
        files = [
            _judged(self.within.name, partial(at, self.within.below + name, endpoint=_endpoint()))
            for name in self.within.beside_weights
        ]
        return Path(files[0]).parent


def _judged(name: str, work: Callable[[], Any]) -> Any:
    """What a call of the hub's library gives. Raises `FileError` in our words: its own may name what is secret."""
    errors = library("huggingface_hub.errors")
    try:
        return work()
    except errors.HFValidationError:
        raise _misnamed(name) from None
    except errors.RevisionNotFoundError:
        raise FileError(
            f"{name} does not exist: the model has no such revision", remedy="check its name"
        ) from None
    except errors.GatedRepoError:
        raise FileError(f"{name} is refused to you (its owner has to allow it)", remedy=ADVICE) from None
    except errors.RepositoryNotFoundError:
        remedy = f"check the name; if it is private, {ADVICE.partition(',')[0]}"
        raise FileError(f"{name} does not exist, or is not shown to you", remedy=remedy) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "nothing")
        remedy = "check the name" if str(status).startswith("4") and status != 429 else "try again later"
        raise FileError(f"{name} cannot be had: the hub answers {status}", remedy=remedy) from None
    except Exception as error:  # its transport's own
        fault = f"{name} cannot be had: the hub cannot be reached ({type(error).__name__})"
        remedy = "check the network, and HF_ENDPOINT; HF_HUB_OFFLINE=1 reads the hub's cache"
        raise FileError(fault, remedy=remedy) from None


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


HUB = CheckpointSource(lambda rest: open_model(f"hf:{rest}"), lambda rest: rest)
