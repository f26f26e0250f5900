"""The claims as text: verdict, numbers, and the rule by which each was judged."""

from __future__ import annotations

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, flow, paragraph
from ckptswap.report.sweep import LOOK
from ckptswap.report.text import Style, number, safe
from ckptswap.sweep.result import Finding, SweepResult


def finding_lines(result: SweepResult, style: Style, *, in_short: bool = False) -> list[Text]:
    """Each claim with its verdict, and unless `in_short` the rule by which it was judged and its numbers.

    None where no claim was judged.

    >>> finding = Finding("bias", "Biases can be reused.", "all reusable", {"worst": 0.002}, "supported")
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(), findings=(finding,))
    >>> [line.plain for line in finding_lines(result, Style(), in_short=True)]
    ['findings', 'supported  bias', '  Biases can be reused.']
    """
    if not result.findings:
        return []
    lines, untested = [Text("findings", style=HEADING)], []
    for finding in result.findings:
        if _is_tested(finding):
            lines += _finding(finding, style, in_short=in_short)
        else:
            untested.append(finding.claim)
    if untested:
        lines += paragraph(f"not tested, having no such rows: {', '.join(untested)}", style)
    return lines if lines[-1].plain else lines[:-1]


def _is_tested(finding: Finding) -> bool:
    """Whether the table has a row that the claim speaks of: a drop of one, or the count of a kind's cells."""
    numbers = [value for name, value in finding.numbers.items() if not name.endswith("bound")]
    return any(isinstance(value, float) or value for value in numbers)


def _finding(finding: Finding, style: Style, *, in_short: bool) -> list[Text]:
    verdict = Text.assemble((finding.verdict, LOOK[finding.verdict]), (f"  {safe(finding.claim)}", QUIET))
    lines = [*flow([verdict], style), *paragraph(safe(finding.text), style, indent=2)]
    if in_short:
        return lines
    numbers = [Text.assemble((f"{safe(name)} ", QUIET), number(value)) for name, value in finding.numbers.items()]
    rule = paragraph(safe(finding.rule), style, indent=8, label="  rule", look=QUIET)
    return [*lines, *rule, *flow(numbers, style, indent=2), Text()]
