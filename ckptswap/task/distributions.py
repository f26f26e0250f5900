"""Which installed package a module of Python is of, and of which version."""

import sys
from functools import cache


@cache
def distribution_of_module(module: str) -> str | None:
    """The distribution that a module comes from; None for Python's own, and for files that belong to none.

    >>> distribution_of_module("numpy.linalg"), distribution_of_module("json"), distribution_of_module("__main__")
    ('numpy', None, None)
    """
    from importlib.metadata import packages_distributions

    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if version_of(top):
        return top.replace("_", "-").lower()
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    owners = packages_distributions().get(top, ()) if "site-packages" in file else ()  # slow: only where needed
    return owners[0].lower() if owners else None


@cache
def version_of(distribution: str) -> str:
    """'' where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # takes long beside the start of a command

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def is_installed(module: str) -> bool:
    """Whether a module is Python's own, or of an installed package, so that a version tells what is in it."""
    return module.partition(".")[0] in sys.stdlib_module_names or distribution_of_module(module) is not None
