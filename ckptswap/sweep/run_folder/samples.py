"""The samples that a sweep's worst cells hit most, as pure data, which a report shows without model or data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptswap.records import Count, from_json, to_json

SCHEMA = "ckptswap.samples/3"
PICTURE = "data:image/png;base64,"


@dataclass(frozen=True)
class Hit:
    """One sample under one cell's variant: scores by the run's first metric, pictures as data URIs."""

    layer: str | None
    kind: str | None
    donor: Count
    sample: Count
    baseline: float
    variant: float
    drop: float
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Samples:
    """What a run kept, and the metric by which these are the worst."""

    metric: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class _File:
    metric: str
    key: str
    rows: tuple[Hit, ...]


def samples_json(samples: Samples, key: str) -> dict[str, Any]:
    """What the file says; `key` is the hash of what they were chosen under."""
    return {"schema": SCHEMA, **to_json(_File(samples.metric, key, samples.hits))}


def parsed_samples(content: Mapping[str, Any]) -> tuple[Samples, str] | None:
    """Samples and key of what `samples_json` gave, None for a file of another version. Raises `ValueError` for
    anything else."""
    if "schema" not in content:
        raise ValueError("its part 'schema' is missing")
    if content["schema"] != SCHEMA:
        return None
    file = from_json(_File, {name: part for name, part in content.items() if name != "schema"})
    return Samples(file.metric, file.rows), file.key
