"""Whose code gives a task its model, data and metrics: versions of libraries, hashes of the user's files.

A newer library may give other scores, so that a run's key holds these.
"""

import os
from collections.abc import Iterator
from types import ModuleType

from torch import nn

from ckptswap.checkpoint import sha256_of
from ckptswap.registry import Group, distribution_of, source_of
from ckptswap.task.callables import code_hash, loaded_from
from ckptswap.task.distributions import distribution_of_module, version_of
from ckptswap.task.in_memory import InMemory
from ckptswap.task.spec import TaskSpec


def code_hashes(spec: TaskSpec) -> dict[str, str]:
    """SHA-256 of each of the user's files that the task names, by spec."""
    hashes = {name: _hash_of(group, name) for group, name in _named(spec)}
    return {name: digest for name, digest in hashes.items() if digest}


def _hash_of(group: Group, name: str) -> str | None:
    registered = source_of(group, name)
    if registered is None:
        return code_hash(name)
    source, rest = registered
    path = source.file(rest) if source.file else None
    return sha256_of(path) if path and os.path.isfile(path) else None


def versions_of(spec: TaskSpec, model: nn.Module) -> dict[str, str]:
    """The version of torch and of every library that gives model, data or metrics, by distribution.

    These are the distribution that a registered source is of and those that it names; for the user's own code its
    package's, or what its file imports; and those whose classes the model's modules are of.
    """
    names: set[str | None] = {"torch"}
    for group, name in _named(spec):
        registered = source_of(group, name)
        if isinstance(name, InMemory):  # what else the module imports that it is of, a notebook, decides nothing
            names.add(
                distribution_of_module(getattr(name.value, "__module__", None) or type(name.value).__module__)
            )
        elif registered is None:
            names |= set(map(distribution_of_module, _imported(loaded_from(name))))
        else:
            source, rest = registered
            names |= {distribution_of(group, name.partition(":")[0]), *source.libraries}
            if source.file:
                names |= set(map(distribution_of_module, _imported(loaded_from(rest))))
    classes = {base for module in model.modules() for base in type(module).__mro__}
    names |= {distribution_of_module(base.__module__) for base in classes if issubclass(base, nn.Module)}
    return {name: version_of(name) for name in sorted(filter(None, names - {"ckptswap"}))}


def _named(spec: TaskSpec) -> Iterator[tuple[Group, str]]:
    if spec.model:
        yield "models", spec.model
    if spec.data:
        yield "data", spec.data
    yield from (("metrics", name) for name in spec.metrics)


def _imported(module: ModuleType | None) -> Iterator[str]:
    """The module itself, and those that it imports at its top, or takes something from."""
    if module is None:
        return
    yield module.__name__
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name
