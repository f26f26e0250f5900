"""The rooms that take long to import, or that few calls need, each loaded when it is first asked for.

>>> from ckptswap import lazy
>>> lazy.agreement.__name__
'ckptswap.sweep.agreement'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptswap import doctor as doctor
    from ckptswap.formats import companions as companions
    from ckptswap.lab import demo as demo
    from ckptswap.lab import findings as findings
    from ckptswap.lab import reporting as reporting
    from ckptswap.lab import reproduce as reproduce
    from ckptswap.lab import train as train
    from ckptswap.report import charts as charts
    from ckptswap.report import display as display
    from ckptswap.report import figures as figures
    from ckptswap.report import frames as frames
    from ckptswap.report import html as html
    from ckptswap.report import pictures as pictures
    from ckptswap.report import runs_html as runs_html
    from ckptswap.sweep import agreement as agreement
    from ckptswap.sweep import analysis as analysis
    from ckptswap.sweep import filtering as filtering
    from ckptswap.sweep import select as select
    from ckptswap.sweep import spec as spec
    from ckptswap.sweep.run_folder import folder as folder
    from ckptswap.sweep.run_folder import trust as trust
    from ckptswap.task import comparison as comparison
    from ckptswap.task import evaluate as evaluate
    from ckptswap.task import explain as explain

ROOMS = {
    "companions": "ckptswap.formats",
    **dict.fromkeys(("diff", "doctor", "show", "sweeping", "threeway", "transplant", "verify"), "ckptswap"),
    **dict.fromkeys(("demo", "findings", "reporting", "reproduce", "train"), "ckptswap.lab"),
    **dict.fromkeys(
        ("charts", "display", "figures", "frames", "html", "pictures", "runs_html"), "ckptswap.report"
    ),
    **dict.fromkeys(("agreement", "analysis", "filtering", "select", "spec"), "ckptswap.sweep"),
    **dict.fromkeys(("folder", "trust"), "ckptswap.sweep.run_folder"),
    **dict.fromkeys(("comparison", "evaluate", "explain"), "ckptswap.task"),
}
"""Name → the package that has it. (`sweeping`, which uses this table itself, has no type above.)"""


def __getattr__(name: str) -> Any:
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{ROOMS[name]}.{name}")
