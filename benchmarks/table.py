"""The table of all that was measured: `benchmarks/README.md`, and the two lines of it that the README cites.

python benchmarks/table.py
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from keeping import MEASURED, Figure, kept

HERE = Path(__file__).parent
TABLE, README = HERE / "README.md", HERE.parent / "README.md"
OPEN, CLOSE = "<!-- benchmarks/table.py writes this -->\n", "<!-- until here -->\n"
CITED = (("sweep", "unet-resnet18"), ("load", "four busy processes"))
"""Which lines the README cites: the benchmark, and what the work is told by."""
WORDS = """# What was measured

Each figure is a ratio against a peer that ran in turn with it in the same run, the median of the rounds that
were run, which may be one; it hangs on the machine far less than seconds would. `hold` is what is asked of it.
The commands print more; each writes what it measured to `measured/`, and `python benchmarks/table.py` writes
this page from there.
"""


def main() -> None:
    TABLE.write_text(table(), "utf-8")
    README.write_text(with_citations(README.read_text("utf-8")), "utf-8")


def figures() -> list[Figure]:
    """All that is kept, benchmark by benchmark."""
    return [figure for path in sorted(MEASURED.glob("*.json")) for figure in kept(path.stem)]


def table() -> str:
    """The page, a table for each machine."""
    parts = [WORDS]
    by_machine = sorted(figures(), key=lambda figure: figure.machine)
    for machine, own in groupby(by_machine, key=lambda figure: figure.machine):
        head = ["| work | against | measured | hold | | by | date |", "|---|---|--:|--:|---|---|---|"]
        parts.append("\n".join([f"## {machine}\n", *head, *map(_row, own)]) + "\n")
    return "\n".join(parts)


def _row(figure: Figure) -> str:
    told = {True: "✓", False: "✗", None: ""}[figure.holds]
    script = f"[`{figure.benchmark}.py`]({figure.benchmark}.py)"
    cells = (figure.work, figure.against, figure.shown, figure.hold, told, script, figure.date)
    return f"| {' | '.join(cells)} |"


def citations() -> str:
    """The lines that the README cites."""
    found = [next(each for each in kept(name) if word in each.work) for name, word in CITED]
    return "".join(f"- {figure.work}: **{figure.shown}** {figure.against}.\n" for figure in found)


def with_citations(readme: str) -> str:
    """The README with these lines as they are now."""
    before, _, rest = readme.partition(OPEN)
    return f"{before}{OPEN}{citations()}{CLOSE}{rest.partition(CLOSE)[2]}"


if __name__ == "__main__":
    main()
