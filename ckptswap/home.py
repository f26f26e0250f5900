"""The folder that a checkpoint may be, rather than a file: its configuration and tokenizer lie there too."""

from pathlib import Path
from typing import NamedTuple, Protocol


class Home(Protocol):
    """The folder that a checkpoint is, rather than a file, and whether an index in it lists the files."""

    @property
    def folder(self) -> Path:
        """On this machine: of one elsewhere, what lies beside the weights is fetched when it is asked for."""

    @property
    def has_index(self) -> bool: ...


class LocalHome(NamedTuple):
    """A folder on this machine."""

    folder: Path
    has_index: bool
