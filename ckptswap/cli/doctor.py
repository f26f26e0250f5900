"""`ckptswap doctor`: what to paste into a bug report."""

from collections.abc import Mapping
from typing import Any

from ckptswap import lazy
from ckptswap.cli.flags import BriefFlags, TextFlags, flags
from ckptswap.report.text import safe


@flags(told=BriefFlags)
def doctor(output: TextFlags) -> None:
    """Print versions, threads, devices and extras: what a bug report needs.

    Each extra is imported; what does not work is said, with the line that installs it.

    \b
    Examples:
      ckptswap doctor
      ckptswap doctor --format json | jq .versions
    """
    output.emit(lazy.doctor.examine(), table=_lines)


def _lines(sections: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for section, facts in sections.items():
        words = _extra if section == "extras" else str
        lines += [section, *(f"  {name:<28} {safe(words(fact))}" for name, fact in facts.items())]
    return "\n".join(lines)


def _extra(extra: Mapping[str, Any]) -> str:
    """An extra in a line: its state, versions, what it brings; where it does not work, what to type."""
    versions = ", ".join(f"{name} {version or '(missing)'}" for name, version in extra["packages"].items())
    brings = f": {extra['brings']}" if extra["brings"] else ""
    if extra["state"] == "works":
        return f"{versions}{brings}"
    fault = f" ({extra['fault']})" if extra["fault"] else ""
    anew = extra["install"].replace("install", "install --force-reinstall") if fault else extra["install"]
    return f"{extra['state']}, {versions}{fault}{brings}; {anew}"
