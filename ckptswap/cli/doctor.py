"""`ckptswap doctor`: what to paste into a bug report."""

from collections.abc import Mapping
from typing import Any

from ckptswap import lazy
from ckptswap.cli.flags import BriefFlags, TextFlags, flags
from ckptswap.report.text import safe


@flags(told=BriefFlags)
def doctor(output: TextFlags) -> None:
    """Print versions, threads, devices and extras: what a bug report needs.

    \b
    Examples:
      ckptswap doctor
      ckptswap doctor --format json | jq .versions
    """
    output.emit(lazy.doctor.examine(), table=_lines)


def _lines(sections: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for section, facts in sections.items():
        lines += [section, *(f"  {name:<28} {safe(str(fact))}" for name, fact in facts.items())]
    return "\n".join(lines)
