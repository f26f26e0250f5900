"""Flags: made of the fields of the library's own dataclasses, or shared by several commands.

A command takes a group of them as one parameter.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from ckptswap.cli.completion import complete_kinds, complete_layers, complete_names
from ckptswap.cli.defaults import Settable, task_defaults
from ckptswap.cli.terminal import emit, style
from ckptswap.given import Names
from ckptswap.records import flag_name
from ckptswap.report.text import Style, dump_json
from ckptswap.sweep.run_folder.overwrite import refuse_precious
from ckptswap.task.spec import TaskSpec

KEYWORD = inspect.Parameter.KEYWORD_ONLY
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
Patterns = list[str] | None
Format = Literal["table", "json", "csv", "md"]
Group = dict[str, tuple[Any, Any]]
"""Flags by name: the annotation that typer reads, and the default."""
Keywords = dict[str, Any]
"""What the flags of a group say, as keywords of the library's functions."""


FILE, NEVER = Settable.FILE, Settable.NEVER


# Groups of flags -------------------------------------------------------------------------------------------------


def flags_of(spec: type, *names: str) -> Group:
    """The flags of a dataclass: of the fields that are named, or of all that have a help.

    What is not given is None, and False of a flag without a value. A field's metadata is that of
    `ckptswap.records.option`.
    """
    hints, made = get_type_hints(spec), {}
    for part in fields(spec):
        if part.metadata.get("help") and (not names or part.name in names):
            name = flag_name(part).replace("-", "_")
            made[name] = (_annotation(hints[part.name], part), False if hints[part.name] is bool else None)
    return made


def _annotation(hint: Any, part: Field[Any]) -> Any:
    """The type as typer wants it, with all that the field says of its flag."""
    said = part.metadata
    words = [f"--{flag_name(part)}"] if "short" in said or hint is bool else []
    words += [f"-{said['short']}"] if "short" in said else []
    how = {
        "help": said["help"],
        "metavar": said.get("metavar"),
        "min": said.get("least"),
        "parser": said.get("parse"),
    }
    option = typer.Option(*words, **{name: value for name, value in how.items() if value is not None})
    marks = [Settable(said["defaults"])] if "defaults" in said else []
    return Annotated[(_typed(hint, said), option, *marks)]


def _typed(hint: Any, said: Mapping[str, Any]) -> Any:
    if said.get("choices"):
        return Literal[tuple(said["choices"])] | None
    if said.get("parse"):
        return str | None
    if hint is bool:
        return bool
    inner = (
        [part for part in get_args(hint) if part is not NoneType]
        if get_origin(hint) in (Union, UnionType)
        else [hint]
    )
    origin = get_origin(inner[0])
    return list[str] | None if origin in (tuple, Mapping) else inner[0] | None


def flags(**groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameters for typer to read: one that is named here by the flags of its group, whose
    values it gets as a dict; one that is a dataclass by its fields."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = get_type_hints(command, include_extras=True)
        forms = {name: hint for name, hint in own.items() if isinstance(hint, type) and is_dataclass(hint)}
        every = groups | {name: _fields(form) for name, form in forms.items()}
        parameters = [
            parameter
            for name, said in inspect.signature(command).parameters.items()
            for parameter in (
                itertools.starmap(_parameter, every[name].items())
                if name in every
                else [said.replace(annotation=own[name], kind=KEYWORD)]
            )
        ]

        @functools.wraps(command)
        def called(**given: Any) -> None:
            for name, group in every.items():
                values = {flag: given.pop(flag) for flag in group}
                given[name] = forms[name](**values) if name in forms else values
            command(**given)

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _fields(form: type) -> Group:
    hints = get_type_hints(form, include_extras=True)
    return {part.name: (hints[part.name], part.default) for part in fields(form)}


def _parameter(name: str, flag: tuple[Any, Any]) -> inspect.Parameter:
    return inspect.Parameter(name, KEYWORD, annotation=flag[0], default=flag[1])


# Where the result goes -------------------------------------------------------------------------------------------


def writable(context: typer.Context, path: str | None) -> str | None:
    """A result may replace an older one: what it may not replace is refused here, before any work. None for
    stdout."""
    if path in STDOUT:
        return None
    if path is not None and not context.resilient_parsing:
        refuse_precious(path, force=context.params.get("force", False))
    return path


OutFlag = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="Write the result there instead of to the terminal.",
        callback=writable,
    ),
    NEVER,
]
OverFlag = Annotated[
    bool, typer.Option("--force", is_eager=True, help="With -o, replace a file that is not such a result."), NEVER
]
"""Read by `writable`, for which it has to be known first."""
FormatFlag = Annotated[Format, typer.Option("--format", help="How to print the result."), FILE]
AsciiFlag = Annotated[bool, typer.Option("--ascii", help="Draw with plain ASCII only."), FILE]


@dataclass
class OutputFlags:
    """How the result is printed, and where."""

    format: FormatFlag = "table"
    out: OutFlag = None
    force: OverFlag = False

    @property
    def style(self) -> Style:
        """How to draw there."""
        return style(self.out, ascii=getattr(self, "ascii", False))

    def emit(self, document: Mapping[str, Any], **forms: Callable[[Any], str]) -> None:
        """Print a document as JSON, or what one of the other forms makes of it."""
        emit(dump_json(document) if self.format == "json" else forms[self.format](document), self.out)


@dataclass
class DrawnFlags(OutputFlags):
    """The same for what is drawn, too."""

    ascii: AsciiFlag = False


@dataclass
class TextFlags(OutputFlags):
    """The same for what is no table."""

    format: Annotated[
        Literal["table", "json"], typer.Option("--format", help="How to print the result."), FILE
    ] = "table"


# What several commands take --------------------------------------------------------------------------------------

CheckpointArgument = Annotated[str, typer.Argument(help="A checkpoint: a file or a folder.", show_default=False)]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace a file that exists."), NEVER]
DropUnreadFlag = Annotated[
    bool,
    typer.Option("--drop-unread", help="Leave out what holds values and cannot be read: packed weights, arrays."),
    NEVER,
]


def _patterns(name: str, metavar: str, help: str, complete: Callable[..., Any]) -> tuple[Any, None]:
    option = typer.Option(f"--{name}", metavar=metavar, help=help, autocompletion=complete)
    return Annotated[Patterns, option, FILE], None


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
NAMES = flags_of(Names)
"""How the names of two checkpoints are brought together."""
CONFIG = Annotated[
    str | None,
    typer.Option("-c", "--config", metavar="FILE", help="A TOML file with these keys; flags win."),
    NEVER,
]
_TASK = flags_of(TaskSpec)
PARTIAL = {"partial": _TASK.pop("partial")}
TASK = {"config": (CONFIG, None), **_TASK}
"""What 'score' means: model, data, metrics. The same keys, without dashes, in a file given with -c."""
MetricFlag = Annotated[str | None, typer.Option(help="Which of the run's metrics. [default: its first]"), FILE]


def task_keywords(task: Keywords) -> dict[str, Any]:
    """What the flags of a task say, upon what the user's own defaults say, as keywords of the library."""
    return {"task": TaskSpec().merge(task_defaults()), **task}
