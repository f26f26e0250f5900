"""The claims as text: verdict, numbers, and the rule by which each was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, flow, paragraph, render
from ckptswap.report.sweep import LOOK
from ckptswap.report.text import Style, number, safe

if TYPE_CHECKING:
    from ckptswap.sweep.result import Finding, SweepResult


def findings_text(result: SweepResult, style: Style) -> str:
    """Each claim with its verdict, its numbers and the rule by which it was judged.

    >>> from ckptswap.sweep.result import Finding, SweepResult
    >>> finding = Finding("bias", "Biases can be reused.", "all reusable", {"worst": 0.002}, "supported")
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(), findings=(finding,))
    >>> print(findings_text(result, Style()), end="")
    findings
    supported  bias
      Biases can be reused.
      rule  all reusable
      worst 0.002
    """
    return render(finding_lines(result, style), style)


def finding_lines(result: SweepResult, style: Style, *, in_short: bool = False) -> list[Text]:
    """The same as lines; `in_short` without numbers and rules. None where no claim was judged."""
    if not result.findings:
        return []
    lines = [Text("findings", style=HEADING)]
    for finding in result.findings:
        lines += _finding(finding, style, in_short=in_short) if _is_tested(finding) else []
    untested = [finding.claim for finding in result.findings if not _is_tested(finding)]
    if untested:
        lines += paragraph(f"not tested, having no such rows: {', '.join(untested)}", style)
    return lines if lines[-1].plain else lines[:-1]


def _is_tested(finding: Finding) -> bool:
    """Whether the table has a row that the claim speaks of: a drop of one, or the count of a kind's cells."""
    numbers = [value for name, value in finding.numbers.items() if not name.endswith("bound")]
    return any(isinstance(value, float) or value for value in numbers)


def _finding(finding: Finding, style: Style, *, in_short: bool) -> list[Text]:
    verdict = Text.assemble(
        (finding.verdict, LOOK.get(finding.verdict, QUIET)), (f"  {safe(finding.claim)}", QUIET)
    )
    said = [*flow([verdict], style), *paragraph(safe(finding.text), style, indent=2)]
    if in_short:
        return said
    numbers = [Text.assemble((f"{safe(name)} ", QUIET), number(value)) for name, value in finding.numbers.items()]
    return [
        *said,
        *paragraph(safe(finding.rule), style, indent=8, label="  rule", look=QUIET),
        *flow(numbers, style, indent=2),
        Text(),
    ]
