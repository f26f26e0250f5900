"""Flags: made of the fields of the library's own dataclasses, or shared by several commands. A command takes a
group of them as one parameter."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from ckptswap.cli.completion import complete_kinds, complete_layers, complete_names
from ckptswap.cli.defaults import Settable, task_defaults
from ckptswap.cli.progress import ProgressLines
from ckptswap.cli.terminal import Quiet, Terminal, emit, style
from ckptswap.errors import UsageError
from ckptswap.given import Names, PairNames
from ckptswap.messages import Listener, listening
from ckptswap.records import flag_name, option
from ckptswap.report.text import Style, dump_json
from ckptswap.sweep.run_folder.overwrite import refuse_precious
from ckptswap.task.spec import TaskSpec

KEYWORD = inspect.Parameter.KEYWORD_ONLY
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
Patterns = list[str] | None
Format = Literal["table", "json", "csv", "md", "latex"]
Group = dict[str, tuple[Any, Any]]  # flags by name: the annotation that typer reads, and the default
Command = Callable[..., None]
Keywords = dict[str, Any]  # what the flags of a group say, as keywords of the library's functions
_TYPER = {"help": "help", "metavar": "metavar", "least": "min", "parse": "parser"}
_TYPER |= {"callback": "callback", "complete": "autocompletion", "is_eager": "is_eager"}
"""What an `option` says → what typer calls it."""


def flags_of(spec: type) -> Group:
    """The flags of a dataclass: of all fields that have a help. What is not given is None, and False of a flag
    without a value. A field's metadata is that of `ckptswap.records.option`."""
    hints, made = get_type_hints(spec), {}
    for part in fields(spec):
        if part.metadata.get("help"):
            default = False if hints[part.name] is bool else None
            made[flag_name(part).replace("-", "_")] = flag(hints[part.name], part, part.name)[0], default
    return made


def flag(hint: Any, part: Field[Any], name: str) -> tuple[Any, Any]:
    """The flag that `option` made: its type as typer wants it, with all that the field says of it; its default."""
    told = part.metadata
    words = [f"-{told['short']}"] if "short" in told else []
    word = told.get("flag", name).replace("_", "-")
    words.append(f"--{word}/--no-{word}" if told.get("negated") else f"--{word}")
    how = {word: told[metadata] for metadata, word in _TYPER.items() if metadata in told}
    marks = [Settable(told["defaults"])] if "defaults" in told else []
    default = inspect.Parameter.empty if part.default is MISSING else part.default
    return Annotated[(_typed(hint, told), typer.Option(*words, **how), *marks)], default


def _typed(hint: Any, told: Mapping[str, Any]) -> Any:
    if told.get("choices"):
        return Literal[tuple(told["choices"])] | None
    if told.get("parse"):
        return str | None
    if hint is bool:
        return bool
    is_union = get_origin(hint) in (Union, UnionType)
    inner = next(part for part in get_args(hint) if part is not NoneType) if is_union else hint
    return list[str] | None if get_origin(inner) in (tuple, Mapping) else inner | None


@dataclass
class BriefFlags:
    """What is told on stderr, of a command that is done at once."""

    quiet: bool = option(False, "Nothing on stderr but errors.", short="q")

    @property
    def listener(self) -> Listener:
        """Who hears what the library tells."""
        return Quiet() if self.quiet else Terminal()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let the listener hear it, and Python's warnings go the same way."""
        with listening(self.listener), warnings.catch_warnings():
            if self.quiet:
                warnings.simplefilter("ignore")
            yield


@dataclass
class ToldFlags(BriefFlags):
    """What is told on stderr, of a command that may take long."""

    progress: Literal["auto", "json"] = option(
        "auto", "A bar on a terminal, elsewhere a line a minute; or lines of JSON for programs."
    )

    @property
    def listener(self) -> Listener:
        if self.progress == "auto":
            return super().listener
        if self.quiet:
            raise UsageError("--quiet and --progress json contradict each other", remedy="leave one of them out")
        return ProgressLines()


def flags(*, told: type[BriefFlags] = ToldFlags, **groups: Group) -> Callable[[Command], Command]:
    """Make a command's parameters those that typer reads, and add those that say what is `told` on stderr.

    One that is named here becomes the flags of its group, whose values it gets as a dict; one that is a dataclass
    becomes its fields; one whose default is an `option` becomes a flag.
    """

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        forms = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
        grouped = dict(groups)
        grouped |= {name: _flags_of_form(form) for name, form in forms.items()}
        voice = _flags_of_form(told)
        own = inspect.signature(command).parameters
        known = {name: grouped.get(name) or {name: _own(hints[name], part)} for name, part in own.items()}
        parameters = [
            inspect.Parameter(name, KEYWORD, annotation=annotation, default=default)
            for group in (*known.values(), voice)
            for name, (annotation, default) in group.items()
        ]

        @functools.wraps(command)
        def called(**given: Any) -> None:
            for name, group in grouped.items():
                values = {part: given.pop(part) for part in group}
                given[name] = forms[name](**values) if name in forms else values
            with told(**{part: given.pop(part) for part in voice}).heard():
                command(**given)

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _flags_of_form(form: type) -> Group:
    hints = get_type_hints(form)
    return {part.name: flag(hints[part.name], part, part.name) for part in fields(form)}


def _own(hint: Any, part: inspect.Parameter) -> tuple[Any, Any]:
    return flag(hint, part.default, part.name) if isinstance(part.default, Field) else (hint, part.default)


def writable(context: typer.Context, path: str | None) -> str | None:
    """A result may replace an older one: what it may not replace is refused here, before any work. None for
    stdout."""
    if path in STDOUT:
        return None
    if path is not None and not context.resilient_parsing:
        refuse_precious(path, force=context.params.get("force", False))
    return path


ASCII = option(False, "Draw with plain ASCII only.", defaults="file")
WIDTH = option(
    None,
    "Draw for so many columns. [default: the terminal's; in a pipe or a file a row a line, whole]",
    metavar="N",
    least=40,
    defaults="file",
)
OVER = option(False, "With -o, replace a file that is not such a result.", is_eager=True, defaults="never")
"""Read by `writable`, for which it has to be known first."""


@dataclass
class TextFlags:
    """How a result that is no table is printed, and where."""

    format: Literal["table", "json"] = option("table", "How to print the result.", defaults="file")
    out: str | None = option(
        None,
        "Write the result there instead of to the terminal; - is stdout.",
        short="o",
        metavar="FILE",
        callback=writable,
        defaults="never",
    )
    force: bool = OVER

    def emit(self, document: Mapping[str, Any], **forms: Callable[[Any], str]) -> None:
        """Print a document as JSON, or what one of the other forms makes of it."""
        emit(dump_json(document) if self.format == "json" else forms[self.format](document), self.out)


@dataclass
class OutputFlags(TextFlags):
    """How a table is printed, and where."""

    format: Format = option("table", "How to print the result.", defaults="file")  # type: ignore[assignment]
    width: int | None = WIDTH

    @property
    def style(self) -> Style:
        """How to draw there."""
        return style(self.out, ascii=getattr(self, "ascii", False), width=self.width)


@dataclass
class DrawnFlags(OutputFlags):
    """The same for what is drawn, too."""

    ascii: bool = ASCII


CheckpointArgument = Annotated[
    str, typer.Argument(help="A checkpoint: a file, a folder, hf://, https:// or s3://.", show_default=False)
]
FORCE = option(False, "Replace a file that exists.", defaults="never")
DROP_UNREAD = option(
    False, "Leave out what holds values and cannot be read: packed weights, arrays.", defaults="never"
)
METRIC = option(None, "Which of the run's metrics. [default: its first]", defaults="file")


def _patterns(name: str, metavar: str, help: str, complete: Callable[..., Any]) -> tuple[Any, Any]:
    return flag(Patterns, option(None, help, metavar=metavar, complete=complete, defaults="file"), name)


SELECTION = {
    "only": _patterns("only", "PATTERN", "Whole tensor name or kind, as a glob: 'bn.running_*'.", complete_names),
    "exclude": _patterns("exclude", "PATTERN", "Leave these out; read like --only.", complete_names),
    "layers": _patterns(
        "layers",
        "PATTERN",
        "Layer paths by whole segments, and all below: 'encoder.3', 'encoder.0:2', '**.conv1'.",
        complete_layers,
    ),
    "kind": _patterns("kind", "KIND", "Kinds, globs and aliases: conv.bias, 'bn.*', bn.stats.", complete_kinds),
}
"""Which tensors. Values of one flag are alternatives, different flags intersect."""
NAMES = flags_of(Names)  # how the names of two checkpoints are brought together
PAIR_NAMES = flags_of(PairNames)
_TASK = flags_of(TaskSpec)
FIT = {name: _TASK.pop(name) for name in ("partial", "match")}
_CONFIG = option(None, "A TOML file with these keys; flags win.", short="c", metavar="FILE", defaults="never")
TASK = {"config": flag(str | None, _CONFIG, "config"), **_TASK}
"""What 'score' means: model, data, metrics. The same keys, without dashes, in a file given with -c."""


def task_keywords(task: Keywords) -> dict[str, Any]:
    """What the flags of a task say, upon what the user's own defaults say, as keywords of the library."""
    return {"task": TaskSpec().merge(task_defaults.get()), **task}
