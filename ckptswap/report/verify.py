"""What `verify` found, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptswap.report.text import plural, safe, size

if TYPE_CHECKING:
    from ckptswap.verify import Report

SCHEMA = "ckptswap.verify/1"


def verify_json(report: Report) -> dict[str, Any]:
    """`format` is null where the checkpoint could not be opened, a `place` where the fault is the whole's."""
    return {
        "schema": SCHEMA,
        "path": report.path,
        "format": report.format,
        "tensors": report.tensors,
        "bytes": report.bytes,
        "ok": report.ok,
        "findings": [{"place": finding.place, "text": finding.text} for finding in report.findings],
    }


def verify_text(data: Mapping[str, Any]) -> str:
    """A line a finding, or one that says that there is none.

    >>> verify_text({"path": "a.npz", "format": "npz", "tensors": 1, "bytes": 8, "ok": True, "findings": []})
    'a.npz: sound (npz, 1 tensor, 8 B)'
    """
    path = safe(data["path"])
    if data["ok"]:
        return f"{path}: sound ({data['format']}, {plural(data['tensors'], 'tensor')}, {size(data['bytes'])})"
    lines = [
        ": ".join(safe(part) for part in (fault["place"], fault["text"]) if part) for fault in data["findings"]
    ]
    return "\n".join(f"{path}: {line}" if not line.startswith(path) else line for line in lines)
