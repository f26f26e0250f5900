"""Defaults of the user's own: `CKPTSWAP_*`, and `ckptswap.toml` or `[tool.ckptswap]` in `pyproject.toml`.

A key is a flag without its dashes; under a command's name it is for this command alone (`[sweep]`,
`CKPTSWAP_SWEEP_JOBS`). What wins: a flag, then `-c task.toml`, then a variable, then the file. What was taken is
said on stderr. They may say how to work, never what to write, and a file that lies in some folder never names code
to run: that is for flags. A file that somebody else could have written is not honoured, and no file leaves out
a part of what `--exit-code` promises.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptswap.cli.terminal import say
from ckptswap.errors import CkptswapError, FileError, UsageError, near
from ckptswap.plainfiles import read_plain, read_toml

PREFIX = "CKPTSWAP_"
CONFIG = "CKPTSWAP_CONFIG"
"""Names another file; empty: none."""
HELP = ("-h", "--help")
OWN, SHARED = "ckptswap.toml", "pyproject.toml"
NEVER = frozenset((
    "from", "to", "data", "data-args", "calibration-data", "calibration-args", "init-from", "map-file", "config",
    "recipient", "run", "out", "save-init", "force", "drop-unread", "fresh", "repair", "partial", "help",
    "version", "install-completion",
    "show-completion",
))  # fmt: skip
"""What a command works on, may write or replace, or may go without, is said where it is called."""
BY_FILE = frozenset((
    "format", "ascii", "sort", "stat", "stats", "all", "top", "by", "watch", "exit-code", "dry-run", "only",
    "exclude", "layers", "kind", "map", "strip-prefix", "skip-missing", "shard-size", "alpha", "both", "mode",
    "model", "model-args", "metric", "back-metric", "target", "back-target", "output", "output-key", "ignore",
    "normalize", "direction", "batch-size", "limit", "threads", "device", "dtype", "engine", "executor", "jobs",
    "memory", "budget", "screen", "tolerance", "confidence", "epsilon", "recalibrate-bn", "steps", "lr",
    "optimizer", "seed", "freeze",
))  # fmt: skip
"""All that a file may say, for its folder may be a stranger's: no flag that names files, code or a cluster."""
_TASK = {
    "model", "model-args", "data-args", "target", "metric", "direction", "batch-size", "limit", "threads",
    "device", "dtype", "output", "output-key", "ignore", "normalize", "group",
}  # fmt: skip
PROMISES = {"diff": "exit-code"}
NARROWING = frozenset(("stat", "only", "exclude", "layers", "kind", "map", "strip-prefix"))
"""What a file may not say beside a promise of the command's, which would then be about less than it seems."""
_task: ContextVar[Mapping[str, Any]] = ContextVar("task defaults", default={})  # noqa: B039  it is never changed
OF_A_RUN = ("report", "plot", "select")
"""What a run was scored by, it says itself: a task's key that is said for all commands is not for these."""
_METRICS = ("iou", "dice", "accuracy", "mse", "psnr")


@dataclass(frozen=True)
class Default:
    """A flag's value, and where it was said. `command` is '' for every command that has the flag."""

    command: str
    flag: str
    value: Any
    where: str
    is_by_file: bool


def default_map(program: Any, arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the invoked command takes where a flag is not given, as click wants it; what belongs to a task is kept
    for `task_defaults`. Says on stderr what was taken.

    Raises `UsageError` for a key that no command has, or a value that makes no sense, naming file or variable.
    """
    name = next((word for word in arguments if not word.startswith("-")), "")
    if name not in program.commands or name == "doctor" or not set(HELP).isdisjoint(arguments):
        return {}
    defaults = [*_from_file(), *_from_environment(program.commands)]
    if not defaults:  # then nobody needs to know the flags of all commands
        return {}
    known = {name: _flags(command) for name, command in program.commands.items()}
    for default in defaults:
        _check(default, known)
    command = program.commands.get(name)
    flags = known[name]
    values = {each.flag: each for each in found if not each.command and each.flag in flags}
    if name in OF_A_RUN:
        values = {flag: each for flag, each in values.items() if flag not in _TASK}
    values |= {each.flag: each for each in found if each.command == name and each.flag in flags}
    given = _given(command, flags, arguments[arguments.index(name) + 1 :])
    left = {flag: each for flag, each in values.items() if flag not in given}
    left = _without_narrowing(left, PROMISES.get(name), given)
    _say(left)
    cast = {flag: _cast(command, flags[flag], each) for flag, each in left.items()}
    task = {flag for flag in left if set(flags) >= _TASK and flag in _TASK}
    _task.set({flag: cast[flag] for flag in task})
    return {name: {str(flags[flag].name): _listed(flags[flag], left[flag]) for flag in left.keys() - task}}


def _without_narrowing(values: dict[str, Default], promise: str | None, given: set[str]) -> dict[str, Default]:
    """Without what a file says beside a promise; says on stderr what that was."""
    if promise is None or (promise not in given and promise not in values):
        return values
    left_out = {flag: each for flag, each in values.items() if each.is_by_file and flag in NARROWING}
    for flag, each in left_out.items():
        say(f"ckptswap: note: --{flag} of {each.where} is left out: --{promise} would promise less than it seems")
    return {flag: each for flag, each in values.items() if flag not in left_out}


def _given(command: Any, flags: Mapping[str, Any], arguments: Sequence[str]) -> set[str]:
    """The flags that the command line gives, by a task file too; and arguments of a model that it names itself."""
    try:
        said, _, _ = command.make_parser(_context(command)).parse_args(list(arguments))
    except Exception:  # click says soon what is wrong
        return set()
    found = {flag for flag, parameter in flags.items() if parameter.name in said}
    if "config" in found:
        with suppress(CkptswapError):
            found |= read_toml(said["config"]).keys()
    return found | ({"model-args"} if "model" in found else set())


def _listed(parameter: Any, each: Default) -> Any:
    """A value as click takes it: a list where the flag may be repeated; a table is its `key=value`."""
    if isinstance(each.value, dict):
        return [f"{key}={json.dumps(value)}" for key, value in each.value.items()]
    return [each.value] if parameter.multiple and not isinstance(each.value, list) else each.value


def task_defaults() -> Mapping[str, Any]:
    """The keys of a task that the user's own defaults say for this command."""
    return _task.get()


def _say(values: Mapping[str, Default]) -> None:
    by_place: dict[str, list[str]] = {}
    for flag, each in values.items():
        by_place.setdefault(each.where, []).append(f"--{flag} {each.value}")
    for where, said in by_place.items():
        say(f"ckptswap: note: {', '.join(said)} by {where}")


def _flags(command: Any) -> dict[str, Any]:
    """A command's options by their long names, without dashes."""
    return {
        word.removeprefix("--"): each
        for each in command.params
        if each.param_type_name == "option"
        for word in each.opts
        if word.startswith("--")
    }


def _context(command: Any) -> Any:
    """click keeps what a command's first context calls help: as in the program."""
    return command.context_class(command, help_option_names=list(HELP))


def _cast(command: Any, parameter: Any, each: Default) -> Any:
    """A value as the flag would give it; click alone would take 1.5 for 1, and true too."""
    values = each.value if isinstance(each.value, list) else [each.value]
    kind = type(parameter.type).__name__
    whole = kind.startswith("Int") and any(isinstance(value, float | bool) for value in values)
    if whole or ("Float" in kind and any(isinstance(value, bool) for value in values)):
        raise UsageError(
            f"{each.where}: {each.flag} is {each.value!r}", remedy="it must be a number, whole if it counts"
        )
    try:
        return parameter.type_cast_value(_context(command), _listed(parameter, each))
    except Exception as error:  # click's own class is typer's in some versions
        said = getattr(error, "message", "give one value")
        raise UsageError(f"{each.where}: {each.flag} is {each.value!r}", remedy=said) from None


def _check(each: Default, known: Mapping[str, Mapping[str, Any]]) -> None:
    everywhere = {flag for flags in known.values() for flag in flags} - NEVER
    if each.command and each.command not in known:
        hint = near(each.command, known) or "name a command, such as [sweep]"
        raise UsageError(f"{each.where}: there is no command {each.command!r}", remedy=hint)
    if each.flag in NEVER:
        raise UsageError(
            f"{each.where}: {each.flag} has no default", remedy=f"give --{each.flag} where it is needed"
        )
    flags = set(known[each.command]) - NEVER if each.command else everywhere
    if each.flag not in flags:
        hint = near(each.flag, flags) or "take it out, or correct its name"
        raise UsageError(f"{each.where}: there is no flag --{each.flag}", remedy=hint)
    if each.is_by_file:
        _check_file(each)


def _check_file(each: Default) -> None:
    """What a file may not say: its folder may be a stranger's, and so may code be that it names."""
    if each.flag not in BY_FILE:
        variable = PREFIX + each.flag.upper().replace("-", "_")
        raise UsageError(
            f"{each.where}: {each.flag} may name files, code or a cluster, which a file in some folder may not",
            remedy=f"give --{each.flag}, or set {variable}",
        )
    values = each.value if isinstance(each.value, list) else [each.value]
    words = [word.strip() for value in values for word in str(value).split(",")]
    is_own = {
        "model": all(word.startswith(("smp:", "lab:")) for word in words),
        "metric": all(word.removesuffix(":pooled") in _METRICS for word in words),
    }
    if not is_own.get(each.flag.removeprefix("back-"), True):
        raise UsageError(
            f"{each.where}: {each.flag} = {each.value!r} would run code that is named in a file",
            remedy=f"give --{each.flag}, or -c task.toml, where it is needed",
        )


# The file --------------------------------------------------------------------------------------------------------


def _from_file() -> Iterator[Default]:
    path = _file()
    if path is None:
        return
    content = read_toml(path)
    tables = _own_table(content) if path.name == SHARED else content
    if not isinstance(tables, dict):
        raise UsageError(f"{path}: [tool.ckptswap] is no table", remedy="write [tool.ckptswap] and flag = value")
    for key, value in tables.items():
        if isinstance(value, dict) and not key.endswith("-args"):
            yield from (Default(key, flag, each, str(path), True) for flag, each in value.items())
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
        places = [os.stat(each) for each in (path, path.parent, target.parent)]
    except OSError:
        return False
    if places[0].st_uid not in (0, os.geteuid()):
        fault = "it belongs to somebody else"
    elif any(each.st_mode & stat.S_IWOTH for each in places):
        fault = "everybody may write there"
    else:
        return True
    say(f"ckptswap: note: {path} is not honoured, since {fault}; {CONFIG}={path} would name it")
    return False


def _own_table(content: Mapping[str, Any]) -> Any:
    """What a `pyproject.toml` says of us; None where it says nothing."""
    tools = content.get("tool")
    return tools.get("ckptswap") if isinstance(tools, dict) else None


# The environment -------------------------------------------------------------------------------------------------


def _from_environment(known: Mapping[str, Mapping[str, Any]]) -> Iterator[Default]:
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or name == CONFIG:
            continue
        key = name.removeprefix(PREFIX).lower().replace("_", "-")
        command, _, flag = key.partition("-")
        if command in known and flag:
            yield Default(command, flag, value, name, False)
        else:
            yield Default("", key, value, name, False)
