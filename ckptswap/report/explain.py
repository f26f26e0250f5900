"""`ckptswap evaluate --explain`: what was inferred, as JSON and for a terminal."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.records import to_json
from ckptswap.report.answer import worse_than_nothing
from ckptswap.report.layout import HEADING, WORSE, Column, field, flow, render, table
from ckptswap.report.text import Style, number, plural, safe

if TYPE_CHECKING:
    from ckptswap.task.explain import Explanation

SCHEMA = "ckptswap.explain/1"
CLASSES = 8
"""Classes of the first sample that are shown; the others are counted."""


def explain_json(explanation: "Explanation") -> dict[str, Any]:
    """The JSON contract, `docs/schemas/explain.schema.json`; what does not exist is null."""
    document = to_json(explanation)
    if explanation.drawn is None:
        del document["drawn"]
    document["classes"] = [{"class": name, "share": share} for name, share in explanation.classes.items()]
    return {"schema": SCHEMA, "below_trivial": [m.name for m in explanation.metrics if m.is_below], **document}


def explain_table(data: Mapping[str, Any], style: Style) -> str:
    """What a sweep would work on: in the first line that the checkpoint is worse than nothing, where it is.

    `data` is the `explain` JSON, `docs/schemas/explain.schema.json`.
    """
    lines = [line for warning in below_trivial(data) for line in _words(warning, style, WORSE)]
    lines += table([Column("", _shown(0)), Column("", _shown(1), smallest=20)], list(_facts(data)), style)[1:]
    lines += [Text(), Text("first sample", style=HEADING)]
    lines += table(_LOOKS, [*data["inputs"], *data["targets"], data["output"]], style)
    if data["classes"]:
        shares = [f"{part['class']}: {part['share']:.1%}" for part in data["classes"][:CLASSES]]
        more = len(data["classes"]) - CLASSES
        shares += [f"and {more} more"] if more > 0 else []
        lines += flow(["classes:", *shares], style)
    lines += [Text(), Text("metrics", style=HEADING), *table(_METRICS, data["metrics"], style)]
    for word in ("notes", "warnings"):
        for text in data[word]:
            lines += [Text(), *_words(f"{word[:-1]}: {safe(text)}", style)]
    return render(lines, style)


def below_trivial(data: Mapping[str, Any]) -> Iterator[str]:
    """That a score is worse than that of a prediction that looks at nothing, one sentence a metric."""
    for metric in data["metrics"]:
        if metric["name"] in data["below_trivial"]:
            yield worse_than_nothing(safe(metric["name"]), metric["score"], metric["trivial"])


def _words(text: str, style: Style, look: str = "") -> list[Text]:
    """A sentence, broken between words."""
    return flow([Text(word, style=look) for word in text.split(" ")], style, gap=1)


def _shown(at: int) -> Callable[[tuple[str, str]], str]:
    """How a fact's name or words are shown."""
    return lambda row: safe(row[at])


def _facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    args = ",".join(
        f"{key}={value}" for key, value in data["model_args"].items() if not isinstance(value, dict | list)
    )
    yield "checkpoint", data["checkpoint"]
    yield "model", data["model"]
    if args:
        yield "", args if len(args) <= 60 else f"{len(data['model_args'])} arguments"
    yield "", f"{plural(data['parameters'], 'parameter')}, {data['dtype']}"
    yield "data", data["data"]
    groups = plural(data["groups"], "group")
    yield "", f"{plural(data['samples'], 'sample')} in {groups}, batches of {data['batch_size']}"
    prepared = [f"resized to {data['resize']}"] if data["resize"] else []
    prepared += [f"normalized by {data['normalize']}"] if data["normalize"] else []
    yield "prepared", ", ".join(prepared) or "as they are in the data"
    if data["ignore"] is not None:
        yield "ignored", f"the value {data['ignore']} of targets"
    yield "output", f"read as {data['reads']}"


_LOOKS = [
    field("name", safe, "", smallest=12),
    field("shape", lambda sides: "×".join(map(str, sides)) or "one number", right=True),
    field("dtype", safe, spare=1),
    field("low", number, "least", right=True),
    field("high", number, "greatest", right=True),
]
_METRICS = [
    field("name", safe, "", smallest=12),
    field("direction", {"max": "higher is better", "min": "lower is better"}.__getitem__, "", spare=1),
    field("score", number, "score", right=True),
    field("trivial", number, "a constant's", right=True),
]
