"""Defaults of the user's own: `CKPTSWAP_*`, and `ckptswap.toml` or `[tool.ckptswap]` in `pyproject.toml`.

A key is a flag without its dashes; under a command's name it is for this command alone (`[sweep]`,
`CKPTSWAP_SWEEP_JOBS`). What wins: a flag, then `-c task.toml`, then a variable, then the file. What was taken is
said on stderr. They may say how to work, never what to write, and a file that lies in some folder never names code
to run: that is for flags. A file that somebody else could have written is not honoured, and no file leaves out
a part of what `--exit-code` promises.
"""

import inspect
import json
import os
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from ckptswap.cli.terminal import say
from ckptswap.errors import CkptswapError, FileError, UsageError, near
from ckptswap.plainfiles import read_plain, read_toml
from ckptswap.records import flag_name
from ckptswap.registry import Group, is_safe
from ckptswap.task.spec import TaskSpec

PREFIX = "CKPTSWAP_"
CONFIG = "CKPTSWAP_CONFIG"  # names another file; empty: none
HELP = ("-h", "--help")
OWN, SHARED = "ckptswap.toml", "pyproject.toml"


class Settable(Enum):
    """Who may set a flag where it is not given; without such a mark variables may, and files may not."""

    FILE = "file"
    """A file in some folder may, too, which may be a stranger's: it names no files, no code and no cluster."""
    NEVER = "never"
    """Nobody: what a command works on, may write or replace, or may go without, is said where it is called."""


_TASK = {flag_name(part) for part in fields(TaskSpec) if part.metadata.get("help")} - {"partial", "match"}
OF_THE_PROGRAM = ("help", "version", "install-completion", "show-completion")
PROMISES = {"diff": "exit-code", "sweep": "fail-on"}
NARROWING = frozenset(("stat", "only", "exclude", "layers", "kind", "map", "strip-prefix", "tolerance"))
"""What a file may not say beside a promise of the command's, which would then be about less than it seems."""
task_defaults: ContextVar[Mapping[str, Any]] = ContextVar("task", default={})  # noqa: B039  it is never changed
"""The keys of a task that the user's own defaults say for this command."""
OF_A_RUN = ("report", "plot", "select")
"""What a run was scored by, it says itself: a task's key that is said for all commands is not for these."""
_NAMING_CODE: Mapping[str, Group] = {"model": "models", "metric": "metrics"}
"""Flags that may name code, and the group of the registry that says what of it a file may name."""


@dataclass(frozen=True)
class Default:
    """A flag's value, and where it was said. `command` is '' for every command that has the flag."""

    command: str
    flag: str
    value: Any
    where: str
    is_by_file: bool


def default_map(commands: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the invoked command takes where a flag is not given, as click wants it; what belongs to a task is kept
    for `task_defaults`. Says on stderr what was taken.

    Raises `UsageError` for a key that no command has, or a value that makes no sense, naming file or variable.
    """
    name = next((word for word in arguments if not word.startswith("-")), "")
    if name not in commands or name == "doctor" or not set(HELP).isdisjoint(arguments):
        return {}
    defaults = [*_from_file(), *_from_environment(commands)]
    if not defaults:  # then nobody needs to know the flags of all commands
        task_defaults.set({})
        return {}
    commands = dict(commands)  # each loaded once
    for default in defaults:
        _check(default, commands)
    command, flags = commands[name], _flags(commands[name])
    given = _given(command, flags, arguments[arguments.index(name) + 1 :])
    shared = flags.keys() - _TASK if name in OF_A_RUN else flags.keys()
    left: dict[str, Default] = {}
    for of_command, those in (("", shared), (name, flags.keys())):
        fitting = [default for default in defaults if default.command == of_command and default.flag in those]
        left |= {default.flag: default for default in fitting if default.flag not in given}
    left = _without_narrowing(left, PROMISES.get(name), given)
    cast = {flag: _cast(command, flags[flag], default) for flag, default in left.items()}
    if not cast.get("quiet"):
        _say(left)
    task = {flag for flag in left if flags.keys() >= _TASK and flag in _TASK}
    task_defaults.set({flag: cast[flag] for flag in task})
    return {name: {str(flags[flag].name): _listed(flags[flag], left[flag]) for flag in left.keys() - task}}


def _without_narrowing(values: dict[str, Default], promise: str | None, given: set[str]) -> dict[str, Default]:
    """Without what a file says beside a promise; says on stderr what that was."""
    if promise is None or (promise not in given and promise not in values):
        return values
    left_out = {flag: value for flag, value in values.items() if value.is_by_file and flag in NARROWING}
    for flag, value in left_out.items():
        say(f"ckptswap: note: --{flag} of {value.where} is left out: --{promise} would promise less than it seems")
    return {flag: value for flag, value in values.items() if flag not in left_out}


def _given(command: Any, flags: Mapping[str, Any], arguments: Sequence[str]) -> set[str]:
    """The flags that the command line gives, by a task file too; and arguments of a model that it names itself."""
    try:
        parsed, _, _ = command.make_parser(_context(command)).parse_args(list(arguments))
    except Exception:  # click says soon what is wrong
        return set()
    given = {flag for flag, parameter in flags.items() if parameter.name in parsed}
    if "config" in given:
        with suppress(CkptswapError):
            given |= read_toml(parsed["config"]).keys()
    return given | ({"model-args"} if "model" in given else set())


def _listed(parameter: Any, default: Default) -> Any:
    """A value as click takes it: a list where the flag may be repeated; a table is its `key=value`."""
    if isinstance(default.value, dict):
        return [f"{key}={json.dumps(value)}" for key, value in default.value.items()]
    return [default.value] if parameter.multiple and not isinstance(default.value, list) else default.value


def _say(values: Mapping[str, Default]) -> None:
    by_place: dict[str, list[str]] = {}
    for flag, default in values.items():
        by_place.setdefault(default.where, []).append(f"--{flag} {default.value}")
    for where, words in by_place.items():
        say(f"ckptswap: note: {', '.join(words)} by {where}")


def _flags(command: Any) -> dict[str, Any]:
    return {
        word.removeprefix("--"): parameter
        for parameter in command.params
        if parameter.param_type_name == "option"
        for word in parameter.opts
        if word.startswith("--")
    }


def marks(command: Any) -> dict[str, Settable | None]:
    """Who may set each of a command's options."""
    parameters = inspect.signature(command.callback).parameters
    marked: dict[str, Settable | None] = {}
    for flag, option in _flags(command).items():
        if option.name in parameters:
            words = parameters[option.name].annotation.__metadata__
            marked[flag] = next((word for word in words if isinstance(word, Settable)), None)
    return marked


def _context(command: Any) -> Any:
    """click keeps what a command's first context calls help: as in the program."""
    return command.context_class(command, help_option_names=list(HELP))


def _cast(command: Any, parameter: Any, default: Default) -> Any:
    """A value as the flag would give it; click alone would take 1.5 for 1, and true too."""
    values = default.value if isinstance(default.value, list) else [default.value]
    kind = type(parameter.type).__name__
    whole = kind.startswith("Int") and any(isinstance(value, float | bool) for value in values)
    if whole or ("Float" in kind and any(isinstance(value, bool) for value in values)):
        remedy = "it must be a number, whole if it counts"
        raise UsageError(f"{default.where}: {default.flag} is {default.value!r}", remedy=remedy)
    try:
        return parameter.type_cast_value(_context(command), _listed(parameter, default))
    except Exception as error:  # click's own class is typer's in some versions
        remedy = getattr(error, "remedy", "") or getattr(error, "message", "give one value")
        raise UsageError(f"{default.where}: {default.flag} is {default.value!r}", remedy=remedy) from None


def _check(default: Default, commands: Mapping[str, Any]) -> None:
    where, flag = default.where, default.flag
    if default.command and default.command not in commands:
        hint = near(default.command, commands) or "name a command, such as [sweep]"
        raise UsageError(f"{where}: there is no command {default.command!r}", remedy=hint)
    every = {flag: mark for command in commands.values() for flag, mark in marks(command).items()}
    if every.get(flag, Settable.NEVER if flag in OF_THE_PROGRAM else None) is Settable.NEVER:
        raise UsageError(f"{where}: {flag} has no default", remedy=f"give --{flag} where it is needed")
    own = marks(commands[default.command]) if default.command else every
    known = {flag for flag in own if every[flag] is not Settable.NEVER}
    if flag not in known:
        hint = near(flag, known) or "take it out, or correct its name"
        raise UsageError(f"{where}: there is no flag --{flag}", remedy=hint)
    if default.is_by_file:
        _check_file(default, every[flag])


def _check_file(default: Default, mark: Settable | None) -> None:
    """What a file may not say: its folder may be a stranger's, and so may code be that it names."""
    if mark is not Settable.FILE:
        variable = PREFIX + default.flag.upper().replace("-", "_")
        raise UsageError(
            f"{default.where}: {default.flag} may name files, code or a cluster, which a file in some folder may "
            "not",
            remedy=f"give --{default.flag}, or set {variable}",
        )
    values = default.value if isinstance(default.value, list) else [default.value]
    words = [word.strip() for value in values for word in str(value).split(",")]
    group = _NAMING_CODE.get(default.flag.removeprefix("back-"))
    if group and not all(is_safe(group, word) for word in words):
        raise UsageError(
            f"{default.where}: {default.flag} = {default.value!r} would run code that is named in a file",
            remedy=f"give --{default.flag}, or -c task.toml, where it is needed",
        )


def _from_file() -> Iterator[Default]:
    path = _file()
    if path is None:
        return
    content = read_toml(path)
    tables = _own_table(content) if path.name == SHARED else content
    if not isinstance(tables, dict):
        remedy = "write [tool.ckptswap] and flag = value"
        raise UsageError(f"{path}: [tool.ckptswap] is not a table", remedy=remedy)
    for key, value in tables.items():
        if isinstance(value, dict) and not key.endswith("-args"):
            yield from (Default(key, flag, part, str(path), True) for flag, part in value.items())
        else:
            yield Default("", key, value, str(path), True)


def _file() -> Path | None:
    """The nearest, from the current folder upwards; a `pyproject.toml` that says nothing of us is passed by."""
    if (named := os.environ.get(CONFIG)) is not None:
        return Path(named) if named else None
    try:
        here = Path.cwd()
    except OSError:
        raise FileError("the current folder is gone", remedy="cd to one that is there") from None
    for folder in (here, *here.parents):
        own, shared = folder / OWN, folder / SHARED
        if os.path.isfile(own) and _is_honoured(own):
            return own
        if not os.path.isfile(shared) or b"ckptswap" not in read_plain(shared) or not _is_honoured(shared):
            continue
        if _own_table(read_toml(shared)) is not None:
            return shared
    return None


def _is_honoured(path: Path) -> bool:
    """Whether nobody but this user (and root) can have written a file; says on stderr why not."""
    try:
        target = path.resolve()
        places = [os.stat(place) for place in (path, path.parent, target.parent)]
    except OSError:
        return False
    if places[0].st_uid not in (0, os.geteuid()):
        fault = "it belongs to somebody else"
    elif any(place.st_mode & stat.S_IWOTH for place in places):
        fault = "everybody may write there"
    else:
        return True
    say(f"ckptswap: note: {path} is not honoured, since {fault}; {CONFIG}={path} would name it")
    return False


def _own_table(content: Mapping[str, Any]) -> Any:
    """What a `pyproject.toml` says of us; None where it says nothing."""
    tools = content.get("tool")
    return tools.get("ckptswap") if isinstance(tools, dict) else None


def _from_environment(commands: Container[str]) -> Iterator[Default]:
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or name == CONFIG:
            continue
        key = name.removeprefix(PREFIX).lower().replace("_", "-")
        command, _, flag = key.partition("-")
        is_for_one = command in commands and flag
        yield Default(*((command, flag) if is_for_one else ("", key)), value, name, False)
