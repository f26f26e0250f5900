"""`s3://BUCKET/PATH`: files and folders in buckets of S3 and of what speaks like it.

fsspec's `s3fs` knows who the user is and where the bucket lies, lists folders, and signs addresses that are
valid for an hour; these are read like any other address of a web server.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import with_key
from ckptswap.errors import FileError, near
from ckptswap.formats.format import CheckpointSource
from ckptswap.formats.opening import open_in
from ckptswap.registry import library
from ckptswap.remote.address import split_key
from ckptswap.remote.answers import NotThereError
from ckptswap.remote.far import FarFile
from ckptswap.remote.web import CLOCK, WebAddress, WebReader

VALID, RENEWED = 3600, 1800  # seconds for which an address is signed, and after which another is asked for
ADVICE = "say who you are as for the `aws` program: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class Bucket:
    """What lists and signs, as the user whom the environment names, or as a stranger where it names nobody."""

    files: Any

    @classmethod
    def opened(cls) -> "Bucket":
        """Raises `DependencyError` without the extra `remote`."""
        library("s3fs")
        bucket = cls(_files())
        try:
            bucket.signed("s3://bucket/key")
        except FileError as error:
            if "NoCredentials" not in str(error):
                raise
            return cls(_files(anon=True))
        return bucket

    def signed(self, place: str) -> str:
        """The address at which a file can be had for a while."""
        return self._asked(place, lambda: self.files.sign(place, expiration=VALID))

    def listed(self, place: str) -> dict[str, int]:
        """The files right in a folder, and the bytes of each; none where there is no folder."""
        folder = place.removeprefix("s3://").rstrip("/")
        try:
            found = self._asked(place, lambda: self.files.ls(folder, detail=True, refresh=True))
        except FileNotFoundError:
            return {}
        inside = {
            each["name"].removeprefix(f"{folder}/"): each["size"] for each in found if each["type"] == "file"
        }
        return {name: size for name, size in inside.items() if name and "/" not in name}

    def _asked(self, place: str, work: Callable[[], Any]) -> Any:
        """What a call gives. Raises `FileError` in words of ours, as the libraries' may name what is secret."""
        try:
            return work()
        except FileNotFoundError:
            raise
        except PermissionError:
            raise FileError(f"{place} is refused to you", remedy=ADVICE) from None
        except Exception as error:
            remedy = f"check the name, and the region and endpoint of your configuration; {ADVICE}"
            raise FileError(f"{place} cannot be had ({type(error).__name__})", remedy=remedy) from None


@dataclass(frozen=True)
class BucketFolder:
    """A folder in a bucket."""

    bucket: Bucket
    name: str
    sizes: dict[str, int] = field(default_factory=dict)

    path = None

    def names(self) -> list[str]:
        if not self.sizes:
            self.sizes.update(self.bucket.listed(self.name))
        return sorted(self.sizes)

    def holds(self, name: str) -> bool:
        return name in self.names()

    def stored(self, name: str) -> int:
        return self.sizes[name] if name in self.names() else 0

    def open(self, name: str) -> FarFile:
        place = f"{self.name}/{name}"
        renewed, url = 0.0, ""

        def asked() -> WebAddress:
            nonlocal renewed, url
            if not url or CLOCK.now() - renewed > RENEWED:
                renewed, url = CLOCK.now(), self.bucket.signed(place)
            return WebAddress(url)

        return FarFile(WebReader(place, asked, advice=ADVICE))


def open_object(address: str) -> Checkpoint:
    """Open a file or folder of a bucket. Raises `FileError` where it cannot be had, `FormatError` for what it
    holds, `DependencyError` without the extra `remote`."""
    place, key = split_key(address)
    place, bucket = place.rstrip("/"), place.removeprefix("s3://").partition("/")[0]
    if not bucket or not address.startswith("s3://"):
        raise FileError(f"{address} names no bucket", remedy="write s3://BUCKET/PATH")
    checkpoint = _open(place, address.endswith("/") or place == f"s3://{bucket}", key)
    checkpoint.path = with_key(place, key)
    return checkpoint


def _open(place: str, is_folder: bool, key: str | None) -> Checkpoint:
    """A file of that name where there is one, else the folder."""
    bucket = Bucket.opened()
    above, _, name = place.rpartition("/")
    if not is_folder:
        try:
            return open_in(BucketFolder(bucket, above), name, key)
        except NotThereError as error:
            missing: FileError = error
    folder = BucketFolder(bucket, place)
    if folder.names():
        return open_in(folder, key=key)
    if is_folder:
        raise FileError(f"{place} does not exist, or has no files", remedy="check the name")
    hint = near(name, bucket.listed(above)) if "404" in missing.message else ""
    raise FileError(missing.message, remedy=hint or missing.remedy)


def _files(**how: Any) -> Any:
    """fsspec's file system, with what the user's configuration says of it."""
    return library("fsspec").filesystem("s3", config_kwargs={"signature_version": "s3v4"}, **how)


S3 = CheckpointSource(lambda rest: open_object(f"s3:{rest}"), lambda rest: rest)
