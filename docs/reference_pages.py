"""Write the pages that follow from the code, `reference/cli.md` and `reference/schemas.md`; a test holds them.

python docs/reference_pages.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = HERE / "reference"
BY_HAND = "<!-- not run here: tests/cli/test_cli_examples.py runs every example of every --help -->"


def cli_page() -> str:
    """Every command with its words, examples, arguments and flags, as `--help` has them."""
    import typer

    from ckptswap.cli.main import Commands, app

    program: Any = typer.main.get_command(app)
    parts = ["# Command line\n", _cleaned(program.help)]
    for name, command in Commands().items():
        parts.append(f"\n## ckptswap {name}\n\n{_command(command)}")
    return "\n".join(parts).rstrip() + "\n"


def _command(command: Any) -> str:
    words, _, examples = inspect.cleandoc(command.help).partition("\b\nExamples:\n")
    lines = [_cleaned(words)]
    if examples:
        lines.append(f"\n{BY_HAND}\n```sh\n{inspect.cleandoc(examples)}\n```\n")
    for title, kind in (("argument", "argument"), ("flag", "option")):
        rows = [_row(each) for each in command.params if each.param_type_name == kind and not each.hidden]
        if rows:
            lines += [f"\n| {title} | meaning |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _cleaned(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(" ".join(each.split()) for each in paragraphs).strip() + "\n"


def _row(parameter: Any) -> str:
    is_flag = getattr(parameter, "is_flag", False)
    choices = getattr(parameter.type, "choices", None)
    value = "\\|".join(map(str, choices)) if choices else parameter.metavar or str(parameter.type.name)
    name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    shown = f"`{name}`" if is_flag or parameter.param_type_name == "argument" else f"`{name}` {value}"
    many = " Can be repeated." if getattr(parameter, "multiple", False) else ""
    default = parameter.default
    is_said = isinstance(default, str | int | float) and not isinstance(default, bool)
    # A default may be of this machine, such as its cores: only what the code spells is written here.
    said = f" Default: `{default}`." if is_said and "[default" not in (parameter.help or "") else ""
    return f"| {shown} | {_escaped(parameter.help or '')}{many}{said} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("\n", " ")


def schemas_page() -> str:
    """Every JSON document: its fields, their types, and the file that a validator takes."""
    parts = [
        "# JSON\n",
        "What `--format json` writes, and `--progress json` line by line.",
        "Each document names its version in `schema`; what has no value is null.",
        "The files are JSON Schema 2020-12, and the tests validate every command's output by them.\n",
    ]
    for path in sorted((HERE / "schemas").glob("*.schema.json")):
        found = json.loads(path.read_text("utf-8"))
        version = found["properties"]["schema"]["const"]
        parts += [f"## {version}\n", f"{found.get('description', '')}\n", f"File: `docs/schemas/{path.name}`\n"]
        parts += ["| field | type |", "|---|---|", *_fields(found, found), ""]
    return "\n".join(parts).rstrip() + "\n"


def _fields(schema: Any, root: Any, prefix: str = "") -> Iterator[str]:
    for name, field in _resolved(schema, root).get("properties", {}).items():
        part = _resolved(field, root)
        yield f"| `{prefix}{name}` | {_type(part, root)} |"
        items = _resolved(part.get("items", {}), root)
        if "properties" in items:
            yield from _fields(items, root, f"{prefix}{name}[].")
        elif "properties" in part:
            yield from _fields(part, root, f"{prefix}{name}.")


def _resolved(schema: Any, root: Any) -> Any:
    while isinstance(schema, dict) and "$ref" in schema:
        found = root
        for word in schema["$ref"].removeprefix("#/").split("/"):
            found = found[word]
        schema = found
    return schema if isinstance(schema, dict) else {}


def _type(field: Any, root: Any) -> str:
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(each)}`" for each in field["enum"])
    for word in ("anyOf", "oneOf"):
        if word in field:
            return " or ".join(dict.fromkeys(_type(_resolved(each, root), root) for each in field[word]))
    kinds = field.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    items = _resolved(field.get("items", {}), root)
    return " or ".join(f"array of {_type(items, root)}" if kind == "array" and items else kind for kind in kinds)


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    (PAGES / "cli.md").write_text(cli_page(), "utf-8")
    (PAGES / "schemas.md").write_text(schemas_page(), "utf-8")
