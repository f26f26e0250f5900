"""Defaults of the user's own: `CKPTSWAP_*`, and `ckptswap.toml` or `[tool.ckptswap]` in `pyproject.toml`.

A key is a flag without its dashes; under a command's name it is for this command alone (`[sweep]`,
`CKPTSWAP_SWEEP_JOBS`). What wins: a flag, then `-c task.toml`, then a variable, then the file. What was taken is
said on stderr. They may say how to work, never what to write, and a file that lies in some folder never names code
to run: that is for flags.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptswap.cli.terminal import say
from ckptswap.errors import FileError, UsageError, near

PREFIX = "CKPTSWAP_"
CONFIG = "CKPTSWAP_CONFIG"
"""Names another file; empty: none."""
OWN, SHARED = "ckptswap.toml", "pyproject.toml"
NEVER = ("from", "to", "out", "force", "fresh", "repair", "config", "help", "run", "data", "install-completion",
         "show-completion", "version")  # fmt: skip
"""What a command works on and what it may replace is said where it is called."""
_TASK = {
    "model", "model-args", "data-args", "target", "metric", "direction", "batch-size", "limit", "threads",
    "device", "dtype", "output", "output-key", "ignore", "normalize", "group",
}  # fmt: skip
_task: ContextVar[Mapping[str, Any]] = ContextVar("task defaults", default={})  # noqa: B039  it is never changed
_METRICS = ("iou", "dice", "accuracy", "mse", "psnr")


@dataclass(frozen=True)
class Default:
    """A flag's value, and where it was said. `command` is '' for every command that has the flag."""

    command: str
    flag: str
    value: Any
    where: str


def default_map(program: Any, arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the invoked command takes where a flag is not given, as click wants it; what belongs to a task is kept
    for `task_defaults`. Says on stderr what was taken.

    Raises `UsageError` for a key that no command has, or a value that makes no sense, naming file or variable.
    """
    known = {name: _flags(command) for name, command in program.commands.items()}
    found = [*_from_file(), *_from_environment(known)]
    for each in found:
        _check(each, known)
    name = next((word for word in arguments if not word.startswith("-")), "")
    flags = known.get(name, {})
    mine = [each for each in found if each.command in ("", name) and each.flag in flags]
    values = {
        each.flag: each for each in sorted(mine, key=lambda each: bool(each.command))
    }  # the command's own win
    if not set(flags) >= _TASK:
        values = {flag: each for flag, each in values.items() if flag != "metric" or each.command}
    left = {flag: each for flag, each in values.items() if not _is_given(flag, arguments)}
    _say(left)
    command = program.commands.get(name)
    cast = {flag: _cast(command, flags[flag], each) for flag, each in left.items()}
    task = {flag for flag in left if set(flags) >= _TASK and flag in _TASK}
    _task.set({flag: cast[flag] for flag in task})
    rest = {flags[flag]: each for flag, each in left.items() if flag not in task}
    return {name: {str(parameter.name): _listed(parameter, each) for parameter, each in rest.items()}}


def _listed(parameter: Any, each: Default) -> Any:
    """A value as click takes it: a list where the flag may be repeated."""
    return [each.value] if parameter.multiple and not isinstance(each.value, list) else each.value


def task_defaults() -> Mapping[str, Any]:
    """The keys of a task that the user's own defaults say for this command."""
    return _task.get()


def _is_given(flag: str, arguments: Iterable[str]) -> bool:
    return any(word == f"--{flag}" or word.startswith(f"--{flag}=") for word in arguments)


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


def _cast(command: Any, parameter: Any, each: Default) -> Any:
    """A value as the flag would give it."""
    try:
        return parameter.type_cast_value(command.context_class(command), _listed(parameter, each))
    except Exception as error:  # click's own class is typer's in some versions
        said = getattr(error, "message", "give one value")
        raise UsageError(f"{each.where}: {each.flag} is {each.value!r}", remedy=said) from None


def _check(each: Default, known: Mapping[str, Mapping[str, Any]]) -> None:
    everywhere = {flag for flags in known.values() for flag in flags} - set(NEVER)
    if each.command and each.command not in known:
        hint = near(each.command, known) or "name a command, such as [sweep]"
        raise UsageError(f"{each.where}: there is no command {each.command!r}", remedy=hint)
    if each.flag in NEVER:
        raise UsageError(
            f"{each.where}: {each.flag} has no default", remedy=f"give --{each.flag} where it is needed"
        )
    flags = set(known[each.command]) - set(NEVER) if each.command else everywhere
    if each.flag not in flags:
        hint = near(each.flag, flags) or "see --help"
        raise UsageError(f"{each.where}: there is no flag --{each.flag}", remedy=hint)


# The file --------------------------------------------------------------------------------------------------------


def _from_file() -> Iterator[Default]:
    path = _file()
    if path is None:
        return
    content = _read(path)
    tables = content.get("tool", {}).get("ckptswap", {}) if path.name == SHARED else content
    for key, value in tables.items():
        if isinstance(value, dict) and not key.endswith("-args"):
            yield from (_safe(Default(key, flag, each, str(path))) for flag, each in value.items())
        else:
            yield _safe(Default("", key, value, str(path)))


def _file() -> Path | None:
    """The nearest, from the current folder upwards; a `pyproject.toml` that says nothing of us is passed by."""
    if (named := os.environ.get(CONFIG)) is not None:
        return Path(named) if named else None
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / OWN).is_file():
            return folder / OWN
        shared = folder / SHARED
        if shared.is_file() and b"[tool.ckptswap" in shared.read_bytes():
            return shared
    return None


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise FileError(f"{path} cannot be read", remedy=error.strerror or str(error)) from None
    except ValueError as error:
        raise UsageError(f"{path} is no TOML file", remedy=str(error)) from None


def _safe(each: Default) -> Default:
    """Raises `UsageError` for what would run a file's code: the folder may be a stranger's."""
    value = each.value if isinstance(each.value, list) else [each.value]
    words = [word.strip() for text in value for word in str(text).split(",")]
    is_code = {
        "model": any(not word.startswith(("smp:", "lab:")) for word in words),
        "metric": any(word.removesuffix(":pooled") not in _METRICS for word in words),
        "back-metric": any(word.removesuffix(":pooled") not in _METRICS for word in words),
    }
    if is_code.get(each.flag):
        raise UsageError(
            f"{each.where}: {each.flag} = {each.value!r} would run code that is named in a file",
            remedy=f"give --{each.flag}, or -c task.toml, where it is needed",
        )
    return each


# The environment -------------------------------------------------------------------------------------------------


def _from_environment(known: Mapping[str, Mapping[str, Any]]) -> Iterator[Default]:
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or name == CONFIG:
            continue
        key = name.removeprefix(PREFIX).lower().replace("_", "-")
        command, _, flag = key.partition("-")
        if command in known and flag:
            yield Default(command, flag, value, name)
        else:
            yield Default("", key, value, name)
