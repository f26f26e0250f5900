r"""Columns and rows → LaTeX, for papers: tables ruled by booktabs, long ones by longtable."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ckptswap.report.layout import Cell, Column
from ckptswap.report.text import asciify, safe

HEAD = r"% ckptswap: this needs \usepackage{booktabs,longtable}"
"""By which a file is known to be ours, and may be replaced by a newer one."""
LONG = 40  # rows that stand on one page
WIDE = 6  # columns that stand side by side in letters of the text's size
_SMALL = r"\footnotesize\setlength{\tabcolsep}{3pt}"
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    "`": r"\textasciigrave{}", "–": "--", "−": r"$-$", "…": r"\ldots{}", "±": r"$\pm$", "×": r"$\times$",
    "→": r"$\to$", "·": r"$\cdot$", "≤": r"$\leq$",
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.-])([-+]?)(\d+(?:\.\d+)?)(?:e([-+]\d+))?(?![\w.]*[A-Za-z_])")
"""A number that stands by itself, not one in a name."""


def latex_text(text: str) -> str:
    r"""Any text as text in LaTeX, on one line; letters that pdflatex does not know are escapes.

    >>> print(latex_text("bn.running_mean −0.1 50%"), latex_text("层"))
    bn.running\_mean $-$0.1 50\% \textbackslash{}u5c42
    """
    known = "".join(c if c in _SIGNS or c <= "\u017f" else asciify(c) for c in safe(text))
    return "".join(_SIGNS.get(c, c) for c in known)


def latex_cell(text: str) -> str:
    r"""The same with numbers as mathematics has them.

    >>> print(latex_cell("-0.13"), latex_cell("[-2e-05, +0.1]"), latex_cell("layer1.0-2"))
    $-0.13$ [$-2 \times 10^{-5}$, $+0.1$] layer1.0-2
    """
    parts, end = [], 0
    for found in _NUMBER.finditer(text):
        sign, digits, power = found.groups()
        if sign or power:
            times = rf" \times 10^{{{int(power)}}}" if power else ""
            parts += [latex_text(text[end : found.start()]), f"${sign}{digits}{times}$"]
            end = found.end()
    return "".join([*parts, latex_text(text[end:])])


def tables_latex(tables: Iterable[str]) -> str:
    """Tables as one file."""
    return "\n".join([HEAD, *tables])


def columns_latex(columns: Iterable[Column], rows: Sequence[Any], caption: str) -> str:
    """A table of rows under those of the columns that a paper has."""
    chosen = [column for column in columns if column.is_in("latex")]
    shown = ([_plain(column.shown(row)) for column in chosen if column.shown] for row in rows)
    return to_latex([column.title for column in chosen], shown, [column.right for column in chosen], caption)


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.plain


def to_latex(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool], caption: str) -> str:
    r"""A table with its caption above; numbers stand to the right.

    >>> print(to_latex(["kind", "drop"], [["conv.bias", "+0.1"]], [False, True], "Drops"), end="")
    \begin{table}
      \centering
      \caption{Drops}
      \begin{tabular}{lr}
        \toprule
        kind & drop \\
        \midrule
        conv.bias & $+0.1$ \\
        \bottomrule
      \end{tabular}
    \end{table}
    """
    lines = [f"    {' & '.join(map(latex_cell, row))} \\\\" for row in rows]
    head = f"    {' & '.join(map(latex_text, titles))} \\\\"
    form = "".join("r" if is_right else "l" for is_right in right)
    small = _SMALL if len(titles) > WIDE else ""
    if len(lines) > LONG:
        begin = [f"{{{small}", rf"\begin{{longtable}}{{{form}}}", rf"    \caption{{{latex_text(caption)}}} \\"]
        repeated = [r"    \toprule", head, r"    \midrule", r"    \endhead", r"    \bottomrule", r"    \endfoot"]
        return "\n".join([*begin, *repeated, *lines, r"\end{longtable}}", ""])
    begin = [r"\begin{table}", rf"  \centering{small}", rf"  \caption{{{latex_text(caption)}}}"]
    rules = [rf"  \begin{{tabular}}{{{form}}}", r"    \toprule", head, r"    \midrule"]
    ends = [r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""]
    return "\n".join([*begin, *rules, *lines, *ends])
