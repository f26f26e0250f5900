"""Flags that several commands share, as dataclasses: a command takes one as a parameter, its fields are flags."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, get_type_hints

import typer

from ckptswap.checkpoint import Checkpoint
from ckptswap.cli.completion import complete_kinds, complete_layers, complete_names
from ckptswap.cli.defaults import task_defaults
from ckptswap.cli.terminal import note
from ckptswap.selection import Selection

KEYWORD = inspect.Parameter.KEYWORD_ONLY
Patterns = list[str] | None
Format = Literal["table", "json", "csv", "md"]

FormatFlag = Annotated[Format, typer.Option("--format", help="How to print the result.")]


STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def writable(context: typer.Context, path: str | None) -> str | None:
    """A result may replace an older one: what it may not replace is refused here, before any work. None for
    stdout."""
    if path in STDOUT:
        return None
    if path is not None and not context.resilient_parsing:
        from ckptswap.formats.overwrite import refuse_precious

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
]
OverFlag = Annotated[
    bool, typer.Option("--force", is_eager=True, help="With -o, replace a file that is not such a result.")
]
"""Read by `writable`, for which it has to be known first."""
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]
DropUnreadFlag = Annotated[
    bool,
    typer.Option("--drop-unread", help="Leave out what holds values and cannot be read: packed weights, arrays."),
]
AsciiFlag = Annotated[bool, typer.Option("--ascii", help="Draw with plain ASCII only.")]


@dataclass
class SelectionFlags:
    """Which tensors. Values of one flag are alternatives, different flags intersect."""

    only: Annotated[
        Patterns,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="Whole tensor name or kind, as a glob: 'bn.running_*'.",
            autocompletion=complete_names,
        ),
    ] = None
    exclude: Annotated[
        Patterns,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave these out; read like --only.",
            autocompletion=complete_names,
        ),
    ] = None
    layers: Annotated[
        Patterns,
        typer.Option(
            "--layers",
            metavar="PATTERN",
            help="Layer paths by whole segments, and all below: 'encoder.3', 'encoder.0:2', '**.conv1'.",
            autocompletion=complete_layers,
        ),
    ] = None
    kind: Annotated[
        Patterns,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Kinds, globs and aliases: conv.bias, 'bn.*', bn.stats.",
            autocompletion=complete_kinds,
        ),
    ] = None

    def selection(self) -> Selection:
        """What the flags select; raises `SelectionError` for an impossible pattern."""
        return Selection.parse(
            only=self.only or (), exclude=self.exclude or (), layers=self.layers or (), kind=self.kind or ()
        )


@dataclass
class NameFlags:
    """How the names of two checkpoints are brought together."""

    map: Annotated[
        Patterns,
        typer.Option(
            "--map",
            metavar="OLD=NEW",
            help="Rename tensors of the first one (of several: of any): 'net.*=encoder.*' or 're:…=…'.",
        ),
    ] = None
    map_file: Annotated[
        str | None,
        typer.Option("--map-file", metavar="FILE", help="Such rules, one a line."),
    ] = None
    strip_prefix: Annotated[
        str | None,
        typer.Option("--strip-prefix", metavar="PREFIX", help="Take it off all names."),
    ] = None

    def renamed(self, *checkpoints: Checkpoint) -> list[Checkpoint]:
        """Each by itself, where a rule or the prefix may concern any of them."""
        from ckptswap.renaming import map_all, parse_rules, strip_all

        found = strip_all(checkpoints, self.strip_prefix) if self.strip_prefix else checkpoints
        return map_all(found, parse_rules(self.map or (), self.map_file))

    def matched(self, other: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
        """Both under comparable names; says on stderr which prefix was found where none was named."""
        from ckptswap.renaming import matched, parse_rules

        rules = parse_rules(self.map or (), self.map_file)
        other, reference, said = matched(other, reference, rules, self.strip_prefix)
        note([said] if said else [])
        return other, reference

    def hint(self, other: Checkpoint, reference: Checkpoint) -> str | None:
        """Where two files' names are apart, and which of these flags would help; None where one was given."""
        from ckptswap.hints import names_apart

        is_given = self.map or self.map_file or self.strip_prefix
        return None if is_given else names_apart(other, reference)

    def sides_matched(
        self, recipient: Checkpoint, donors: Sequence[Checkpoint]
    ) -> tuple[Checkpoint, list[Checkpoint]]:
        """The same for a sweep's recipient and donors."""
        from ckptswap.renaming import parse_rules, sides_matched

        rules = parse_rules(self.map or (), self.map_file)
        recipient, found, said = sides_matched(recipient, donors, rules, self.strip_prefix)
        note(said)
        return recipient, found

    def all_matched(self, reference: Checkpoint, *others: Checkpoint) -> list[Checkpoint]:
        """The same for several, where a rule or a prefix may concern any of them."""
        from ckptswap.renaming import all_matched, parse_rules

        found, said = all_matched(reference, others, parse_rules(self.map or (), self.map_file), self.strip_prefix)
        note(said)
        return found


PartialFlag = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Load what fits the model, and list the rest; what the file lacks stays as initialised.",
    ),
]


@dataclass
class TaskFlags:
    """What 'score' means: model, data, metrics. The same keys, without dashes, in a file given with -c."""

    config: Annotated[
        str | None, typer.Option("-c", "--config", metavar="FILE", help="A TOML file with these keys; flags win.")
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="smp:NAME, file.py:callable or package.module:callable; not needed where the checkpoint says it.",
        ),
    ] = None
    model_args: Annotated[
        Patterns, typer.Option(metavar="K=V,…", help="Arguments of the model: encoder_name=resnet18,classes=1.")
    ] = None
    data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="A folder with images/ and masks/, file.py:callable, or lab:mni."),
    ] = None
    data_args: Annotated[Patterns, typer.Option(metavar="K=V,…", help="Arguments of the data callable.")] = None
    target: Annotated[
        Literal["masks", "input"] | None, typer.Option(help="What to predict; 'input' for auto-encoders.")
    ] = None
    metric: Annotated[
        Patterns,
        typer.Option(metavar="NAME", help="iou, dice, accuracy (or NAME:pooled), mse, psnr, or file.py:callable."),
    ] = None
    direction: Annotated[
        Literal["max", "min"] | None, typer.Option(help="Which way is better, for a metric of your own.")
    ] = None
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Samples at once. [default: 8]")] = None
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use the first N samples only.")] = None
    threads: Annotated[int | None, typer.Option(metavar="N", help="Torch threads. [default: all cores]")] = None
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Where to compute. [default: cpu]")] = None
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16"] | None,
        typer.Option(help="In which precision to compute; scores then differ. [default: the model's own]"),
    ] = None
    output: Annotated[
        Literal["logits", "probability"] | None,
        typer.Option(help="What the model's last layer gives. [default: logits]"),
    ] = None
    output_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Which entry of a dict or tuple output to score.")
    ] = None
    ignore: Annotated[int | None, typer.Option(metavar="CLASS", help="Mask value that does not count.")] = None
    normalize: Annotated[
        str | None, typer.Option(metavar="MEAN/STD", help="Applied to images, one value or one a channel.")
    ] = None
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX|CSV", help="Which samples belong together: a regex with one group, or a file."
        ),
    ] = None

    def spec(self, *, exclude: Patterns = None, partial: bool = False) -> Any:
        """The `TaskSpec` that the flags, the file and the user's own defaults say, the first where they differ.

        `exclude` is as typed; it and `partial` say what of a checkpoint need not fit the model.
        """
        from ckptswap.task import TaskSpec

        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "config"}
        base = TaskSpec().merge(task_defaults())
        spec = (base.merge_toml(self.config) if self.config else base).merge({**said, "partial": partial or None})
        return replace(spec, exclude=Selection.parse(exclude=exclude or ()).exclude)


def flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is one of the dataclasses above by its fields, for typer to read."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    parameters = [
        each
        for name, parameter in inspect.signature(command).parameters.items()
        for each in (
            _fields(groups[name]) if name in groups else [parameter.replace(annotation=hints[name], kind=KEYWORD)]
        )
    ]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def _plain(parameter: inspect.Parameter, hint: Any) -> inspect.Parameter:
    return parameter.replace(annotation=hint, kind=KEYWORD)


def _fields(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            KEYWORD,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]
