"""What the task's flags and `-c task.toml` say, as pure data. No torch.

A key of the TOML file is a flag without its dashes (`batch-size = 4`), and means the same; flags win. Paths are
relative to the current folder in both.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ckptswap.cores import usable_cores
from ckptswap.errors import UsageError, brief, near
from ckptswap.naming import MATCHES
from ckptswap.plainfiles import read_toml, refuse_unwieldy
from ckptswap.records import Count, option
from ckptswap.task.in_memory import InMemory
from ckptswap.task.limit import Limit

TARGETS = ("masks", "input")
OUTPUTS = ("logits", "probability")
DTYPES = ("f64", "f32", "bf16", "f16")
DIRECTIONS = ("max", "min")
_PYTHON_WORDS = {"None": None, "none": None, "True": True, "False": False}


THREADS_MOST = 1024
"""More than any machine has; a configuration's typing error, or a stranger's, would take the machine."""


@dataclass(frozen=True)
class TaskSpec:
    """A task as the user says it.

    `model` and `data` are None where nothing was said (the checkpoint may say what it is). `target` is `masks`, or
    `input` for auto-encoding. `output` says whether the model gives `logits` or a `probability`; `output_key`
    picks from a dict or tuple. `limit` is a number of samples to draw, or "first:N" (`task.limit`). `threads` is
    the number of cores that it may use unless given; the last bits of scores depend on it, on `batch_size`, and on
    `dtype`, in which it computes (as it was built where None). `group` is a regex with one group on the file name,
    or a .csv file with the columns name and group; of samples that are no files, the number or name of the part
    that tells it. `normalize` is MEAN/STD, such as `0.5/0.25`, one value or one a channel, or `auto`; `resize` is
    HxW, or one number. `exclude` and `partial` say how a checkpoint may fail to fit the model (`task.weights`):
    patterns of what need not fit, and whether anything need; by a `match` of "shape-order" names need not be the
    model's (`ckptswap.shape_order`). `walk` is the order of the samples (`task.order`): by
    themselves, or group by group. So many `screen_samples` are walked before all others.

    >>> TaskSpec().merge({"metric": "iou,dice", "batch-size": 4}).metrics
    ('iou', 'dice')
    """

    model: str | None = option(
        None,
        "smp:NAME, timm:NAME, torchvision:NAME, hf:FOLDER, lightning:file.py:Class, export:FILE.pt2, "
        "script:FILE.pt, file.py:callable or package.module:callable; not needed where the checkpoint says it.",
        metavar="SPEC",
        defaults="file",
    )
    model_args: Mapping[str, Any] = option(
        None,
        "Arguments of the model: encoder_name=resnet18,classes=1.",
        metavar="K=V,…",
        defaults="file",
        factory=dict,
    )
    data: str | None = option(
        None,
        "A folder (images/ and masks/, one a class, …), text:FILE, datasets:FOLDER, npz:FILE, random:SHAPE, "
        "file.py:callable, or lab:mni.",
        metavar="SPEC",
        defaults="never",
    )
    data_args: Mapping[str, Any] = option(
        None, "Arguments of the data.", metavar="K=V,…", defaults="never", factory=dict
    )
    target: str = option("masks", "What to predict; 'input' for auto-encoders.", choices=TARGETS, defaults="file")
    metrics: tuple[str, ...] = option(
        ("iou",),
        "iou, dice, accuracy (or NAME:pooled), mse, psnr, loss, perplexity, top1, top5, token-accuracy, without "
        "labels kl, agreement, output-mse, torchmetrics:NAME, or file.py:callable.",
        flag="metric",
        metavar="NAME",
        defaults="file",
    )
    direction: str | None = option(
        None, "Which way is better, for a metric of your own.", choices=DIRECTIONS, defaults="file"
    )
    batch_size: int = option(8, "Samples at once. [default: 8]", metavar="N", defaults="file")
    limit: int | str | None = option(
        None,
        "Use N samples only, drawn at random under a fixed seed, evenly by class and group where these are known; "
        "first:N takes the first ones.",
        metavar="N",
        parse=Limit.parsed,
        defaults="file",
    )
    threads: int = option(
        None,
        "Torch threads. [default: as many as there are cores that it may use]",
        metavar="N",
        defaults="file",
        factory=usable_cores,
    )
    device: str = option("cpu", "Where to compute. [default: cpu]", metavar="NAME", defaults="file")
    dtype: str | None = option(
        None,
        "In which precision to compute; scores then differ. [default: the model's own]",
        choices=DTYPES,
        defaults="file",
    )
    output: str = option(
        "logits", "What the model's last layer gives. [default: logits]", choices=OUTPUTS, defaults="file"
    )
    output_key: str | None = option(
        None, "Which entry of a dict or tuple output to score.", metavar="KEY", defaults="file"
    )
    ignore: int | None = option(None, "Mask value that does not count.", metavar="CLASS", defaults="file")
    normalize: str | None = option(
        None,
        "Applied to images, one value or one a channel; 'auto': what the model's configuration says.",
        metavar="MEAN/STD",
        defaults="file",
    )
    resize: str | None = option(
        None, "Make images and masks this large; one number is both sides.", metavar="HxW", defaults="file"
    )
    group: str | None = option(
        None,
        "Which samples belong together: of files a regex with one group, or a file that says it; of other samples "
        "the number (from 0) or the name of the part that does.",
        metavar="REGEX|CSV|PART",
    )
    partial: bool = option(
        False,
        "Load what fits the model, and list the rest; what the file lacks stays as initialised.",
        defaults="never",
    )
    match: str = option(
        "names",
        "Pair what has no namesake in the model by order and shape, and print the pairs. [default: names]",
        choices=MATCHES,
        defaults="file",
    )
    exclude: tuple[str, ...] = ()
    walk: Literal["samples", "groups"] = "samples"
    screen_samples: Count | None = None

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "TaskSpec":
        """Read a task file; raises `FileError` when it cannot be read, `UsageError` when it makes no sense."""
        return cls().merge_toml(path)

    def merge_toml(self, path: str | os.PathLike[str]) -> "TaskSpec":
        """This spec with a task file laid over it. Raises as `from_toml` does."""
        content = read_toml(path)
        try:
            return self.merge(content)
        except UsageError as error:
            raise UsageError(f"in {path}, {error.message}", remedy=error.remedy) from None

    def merge(self, flags: Mapping[str, Any]) -> "TaskSpec":
        """This spec with the given flags laid over it; a flag that is None or empty was not given.

        `model-args` and `data-args` add to those that are there, unless the flags name another model or data.
        Raises `UsageError` for a key that does not exist or a value that makes no sense.

        >>> TaskSpec(model="smp:Unet", model_args={"classes": 1}).merge({"model-args": "in_channels=1"}).model_args
        {'classes': 1, 'in_channels': 1}
        """
        given = {_field(key): value for key, value in flags.items() if not _is_nothing(value)}
        values = {key: _READERS[key](_flag(key), value) for key, value in given.items()}
        for owner in ("model", "data"):
            args = f"{owner}_args"
            if args in values and values.get(owner, getattr(self, owner)) == getattr(self, owner):
                values[args] = {**getattr(self, args), **values[args]}
            elif owner in values and values[owner] != getattr(self, owner):
                values.setdefault(args, {})
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides a score, in JSON's words: what a run's key is made of.

        How a checkpoint may fail to fit decides none: what is not loaded counts by its values (`Task.identity`).

        >>> TaskSpec(data="scans", threads=1).as_dict()["data"]
        'scans'
        """
        limit = Limit.of(self.limit)
        fields = {**asdict(self), "metrics": list(self.metrics), "limit": limit and limit.words}
        said = {"resize": self.resize, "screen_samples": self.screen_samples, "walk": self.walk != "samples"}
        unsaid = [key for key, value in said.items() if not value]  # older runs have no such keys
        return {key: value for key, value in fields.items() if key not in ("exclude", "match", "partial", *unsaid)}


def parse_args(text: str) -> dict[str, Any]:
    """`k=v,k=v` as a dict: values are read as JSON where they can be, else as strings; brackets keep their commas.

    >>> parse_args("encoder_name=resnet18,classes=1,encoder_weights=None,decoder_channels=[64,32]")
    {'encoder_name': 'resnet18', 'classes': 1, 'encoder_weights': None, 'decoder_channels': [64, 32]}
    """
    args: dict[str, Any] = {}
    for part in _split_outside_brackets(text):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key.isidentifier():
            raise UsageError(
                f"{part.strip()!r} in {text!r} is not an argument", remedy="write key=value,key=value"
            )
        if key in args:
            raise UsageError(f"{key!r} is given twice in {text!r}", remedy="give it once")
        args[key] = _value(value)
    return args


def _split_outside_brackets(text: str) -> Iterator[str]:
    depth, start, quoted = 0, 0, False
    for at, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            depth += (letter in "[{(") - (letter in ")}]")
            if letter == "," and depth == 0:
                yield text[start:at]
                start = at + 1
    if text[start:].strip() or start:
        yield text[start:]


def _value(text: str) -> Any:
    if text in _PYTHON_WORDS:
        return _PYTHON_WORDS[text]
    try:
        value = json.loads(text, parse_constant=_no_constant)
        refuse_unwieldy(value)
        return value
    except (ValueError, RecursionError):
        return text


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _field(key: str) -> str:
    name = key.replace("-", "_")
    name = "metrics" if name == "metric" else name
    if name not in _READERS:
        flags = [_flag(name) for name in _READERS]
        raise UsageError(
            f"there is no task key {key!r}", remedy=near(key, flags) or f"use one of {', '.join(flags)}"
        )
    return name


def _is_nothing(value: object) -> bool:
    return value is None or (type(value) in (list, tuple) and not value)


def _flag(name: str) -> str:
    return "metric" if name == "metrics" else name.replace("_", "-")


def _text(flag: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise UsageError(f"{flag} is {brief(value)}", remedy="it must be a text")
    return value if isinstance(value, str) else str(value)


def _key(flag: str, value: Any) -> str:
    """An index into a tuple may be written as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(flag, value)


def _whole(flag: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{flag} is {brief(value)}", remedy="it must be a whole number")
    return value


def _yes_or_no(flag: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{flag} is {brief(value)}", remedy="it must be true or false")
    return value


def _count(flag: str, value: Any) -> int:
    if _whole(flag, value) < 1:
        raise UsageError(f"{flag} is {value}", remedy="it must be 1 or more")
    return value


def _one_of(words: tuple[str, ...]) -> Callable[[str, Any], str]:
    def read(flag: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise UsageError(f"{flag} is {brief(value)}", remedy=f"it must be {' or '.join(words)}")
        return value

    return read


def _names(flag: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Iterable) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{flag} is {brief(value)}", remedy="it must be a name, or names with commas between")
    names = tuple(name for text in texts for name in _names_in(text))
    if not all(names) or len(set(names)) < len(names):
        shown = ", ".join(map(repr, names))
        raise UsageError(f"{flag} is {shown}", remedy="it must be names, none of them empty or given twice")
    return names


def _names_in(text: str) -> list[str]:
    return [text] if isinstance(text, InMemory) else [name.strip() for name in text.split(",")]


def _args(flag: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return parse_args(value)
    if not isinstance(value, Mapping):
        return parse_args(",".join(_names(flag, value)))
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{flag} holds what JSON cannot say ({error})", remedy="use texts and numbers") from None
    return dict(value)


def _threads(flag: str, value: Any) -> int:
    count = _count(flag, value)
    if count > THREADS_MOST:
        raise UsageError(f"{flag} is {count:,}", remedy=f"{THREADS_MOST:,} is the most")
    return count


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "model": _text, "model_args": _args, "data": _text, "data_args": _args,
    "target": _one_of(TARGETS), "metrics": _names, "direction": _one_of(DIRECTIONS),
    "batch_size": _count, "limit": lambda _, value: Limit.parsed(value), "threads": _threads, "device": _text,
    "dtype": _one_of(DTYPES),
    "output": _one_of(OUTPUTS), "output_key": _key, "ignore": _whole, "normalize": _text, "resize": _key,
    "group": _key,
    "partial": _yes_or_no, "match": _one_of(MATCHES),
}  # fmt: skip
"""How each flag's value is read, in the order of the fields."""
