"""`text:FILE`: documents for a language model, in tokens of the tokenizer in the model's folder.

Of a .txt file a line is a document, of a .jsonl file the `text` of each line, whose `label`, a whole number, is
the target where all have one, and whose `group` is its group; else the tokens are their own labels, and a document
its own group. Documents are padded on the right to the longest; the mask (`attention_mask`) is left out where
nothing is. Of `--data-args`: `tokenizer=FOLDER`, `length=N` (tokens at the most), `block=N` cuts documents into
pieces of N tokens, whose group is their document, `field=NAME` is the text's name in a .jsonl.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ckptswap.errors import DataError, FileError
from ckptswap.plainfiles import read_plain
from ckptswap.registry import library
from ckptswap.statistics import Drawn
from ckptswap.task.callables import first_line
from ckptswap.task.data.draw import Strata, strata_of
from ckptswap.task.data.request import DataRequest, refuse_unknown, whole
from ckptswap.task.limit import SEED, Limit
from ckptswap.task.order import drawing_order

LENGTH = 512
"""Tokens of a document at the most, unless told, or the model takes fewer."""
MOST = 1 << 30
"""Bytes of a file."""
NO_LABEL = -100
ARGS = ("tokenizer", "length", "block", "field")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length")
_LINE_END = re.compile(r"\r\n|\r|\n")
"""Not `splitlines`, which also cuts at separators that a JSON text may hold."""


@dataclass(frozen=True)
class TextDocument:
    """A text, and what else its line says."""

    text: str
    label: Any = None
    group: Any = None


class _Piece(NamedTuple):
    """What of a document is a sample: its tokens, and what the document's line says."""

    document: int
    ids: list[int]
    label: Any
    group: Any


class Texts:
    """Items are (dict of input_ids and attention_mask; labels; group).

    `targets` (of documents that have a class) and `groups` are one a sample. `drawn`: the numbers of the samples
    that a limit takes, and of what they are a part; no other document is tokenised. None where nothing is drawn
    yet: without a limit, and of pieces, which nobody can count before all documents are cut.
    """

    drawn: tuple[Sequence[int], Drawn] | None = None

    def __init__(
        self, documents: Sequence[TextDocument], request: DataRequest, args: Mapping[str, Any], what: str
    ) -> None:
        encode, padding, longest = tokenizer_of(request, args)
        length, block = whole(args, "length", longest, what) or longest, whole(args, "block", None, what)
        self._labelled = all(type(document.label) is int for document in documents)
        self._padding = padding
        limit = Limit.of(request.spec.limit)
        order, strata = self._order(documents, limit if block is None else None)
        most = limit.samples if limit and (limit.is_first or not block) else None
        pieces: list[_Piece] = []
        cut = short = read = 0
        for number in order:
            read += 1
            ids = encode(documents[number].text)
            own = list(self._cut(number, documents[number], ids, block or length, whole=block is not None))
            pieces += own
            cut += block is None and len(ids) > length
            short += not own
            if most is not None and len(pieces) >= most:
                break
        if not pieces:
            raise DataError(f"{what} holds no document of two tokens or more", remedy="check the file")
        numbers: Sequence[int] = range(len(pieces))
        if most is not None and limit and (read < len(documents) or len(pieces) > most):
            pieces, numbers = sorted(pieces[:most], key=attrgetter("document")), range(most)
            if limit.is_first:
                self.drawn = numbers, Drawn(None if block else len(documents))
            else:
                numbers = [piece.document for piece in pieces]
                self.drawn = numbers, Drawn(len(documents), tuple(strata), SEED)
        self._pieces = dict(zip(numbers, pieces, strict=True))
        self._width = max(len(piece.ids) for piece in pieces)
        self.targets = [piece.label for piece in pieces] if self._labelled else []
        self.groups = [piece.group for piece in pieces]
        idle = 0 if self._labelled else sum(document.label is not None for document in documents)
        told = {
            f"{cut} of {read} documents are longer than {length} tokens, and cut there": cut,
            f"{short} of {read} documents have fewer than two tokens, and are left out": short,
            f"{idle} labels are left out: each of the {len(documents)} documents needs one, a whole number": idle,
        }
        self.notes = tuple(f"{what}: {text}" for text, count in told.items() if count)

    def _order(self, documents: Sequence[TextDocument], limit: Limit | None) -> tuple[Iterable[int], Strata]:
        """In which order documents are taken, and evenly over what."""
        if limit is None or limit.is_first or limit.samples >= len(documents):
            return range(len(documents)), {}
        strata = strata_of([(None, document.label, document.group) for document in documents])
        return drawing_order(len(documents), *strata.values()).tolist(), strata

    def _cut(
        self, number: int, document: TextDocument, ids: list[int], length: int, *, whole: bool
    ) -> Iterator[_Piece]:
        """Pieces of so many tokens, or only the first, without what is too short to tell anything."""
        group = number if document.group is None else document.group
        for start in range(0, len(ids) if whole else 1, length):
            part = ids[start : start + length]
            if len(part) > (0 if self._labelled else 1):
                yield _Piece(number, part, document.label, group)

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, at: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, Any]:
        _, ids, label, group = self._pieces[at]
        missing = self._width - len(ids)
        inputs = {
            "input_ids": torch.tensor([*ids, *[self._padding] * missing]),
            "attention_mask": torch.tensor([1] * len(ids) + [0] * missing),
        }
        labels = label if self._labelled else [*ids, *[NO_LABEL] * missing]
        return inputs, torch.tensor(labels), group


def tokenizer_of(request: DataRequest, args: Mapping[str, Any]) -> tuple[Any, int, int]:
    """From a text to token ids, by the tokenizer of a folder; the id of padding; and how many tokens fit.

    Raises `DataError` where there is no such folder, or no tokenizer in it. No code of the folder's is run.
    """
    home = Path(args["tokenizer"]) if "tokenizer" in args else request.home()
    if home is None or not home.is_dir():
        raise DataError("nothing says which tokenizer the text is for", remedy="--data-args tokenizer=FOLDER")
    if not any((home / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        remedy = "save the tokenizer there, or name its folder: --data-args tokenizer=FOLDER"
        raise DataError(f"there is no tokenizer in {home}", remedy=remedy)
    transformers = library("transformers")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            home, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises whatever its readers do
        raise DataError(f"the tokenizer in {home} cannot be read", remedy=first_line(error)) from None
    padding = next((own for own in (tokenizer.pad_token_id, tokenizer.eos_token_id) if own is not None), 0)
    config = request.configuration()
    positions = [config[name] for name in _POSITIONS if isinstance(config.get(name), int)]
    fits = min([LENGTH, tokenizer.model_max_length, *positions])
    return lambda text: tokenizer(text, verbose=False)["input_ids"], padding, fits


def documents_of(path: Path, field: str) -> list[TextDocument]:
    """The documents of a file; empty lines are none. Raises `DataError` for a file that cannot be read."""
    try:
        text = read_plain(path, MOST).decode("utf-8-sig")
    except FileError as error:
        raise DataError(f"{path} cannot be read as text", remedy=str(error)) from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read as text ({error})", remedy="save it as UTF-8") from None
    lines = [(number, line) for number, line in enumerate(_LINE_END.split(text), 1) if line.strip()]
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return [TextDocument(line) for _, line in lines]
    return list(_of_json(path, lines, field))


def _of_json(path: Path, lines: Sequence[tuple[int, str]], field: str) -> Iterator[TextDocument]:
    for number, line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        text = said.get(field) if isinstance(said, dict) else None
        if not isinstance(text, str):
            remedy = f"each line must be a JSON object with {field!r}, or name another: --data-args field=NAME"
            raise DataError(f"line {number} of {path} has no text {field!r}", remedy=remedy)
        group = said.get("group")
        if isinstance(group, list | dict | float):
            raise DataError(
                f"line {number} of {path} has the group {group!r:.40}", remedy="give a whole number or a text"
            )
        yield TextDocument(text, said.get("label"), group)


def built(place: str, args: Mapping[str, Any], request: DataRequest) -> Texts:
    """Open the documents of a file. Raises `DataError` for what cannot be read, or is one line."""
    what = f"text:{place}"
    refuse_unknown(args, ARGS, what)
    documents = documents_of(Path(place), str(args.get("field", "text")))
    if len(documents) == 1 and "block" not in args:
        raise DataError(
            f"{place} is one line, and a line is a document",
            remedy="put each document on a line of its own, or cut it into pieces: --data-args block=256",
        )
    return Texts(documents, request, args, what)
