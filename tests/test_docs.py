"""Every code block of README, CONTRIBUTING and docs runs, or is the output of one that does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import programs
import pytest

ROOT = Path(__file__).parent.parent


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


refresh = script("refresh")
PAGES = {str(page.relative_to(ROOT)): page for page in refresh.pages()}


def test_the_pages_are_there() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/howto/own-model.md"} <= set(PAGES)
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert str(page.relative_to(ROOT / "docs")) in nav, f"{page} is in no menu"


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs_or_is_output_or_says_why_not(name: str) -> None:
    before = None
    for block in refresh.blocks(PAGES[name].read_text("utf-8")):
        is_output = block.language == "text" and before is not None and before.runs
        assert block.runs or block.title or is_output or block.mark.startswith("not run"), block.body
        before = block
    fences = re.findall(r"^```", PAGES[name].read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(refresh.blocks(PAGES[name].read_text("utf-8")))


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "```" in page.read_text("utf-8")])
def test_the_blocks_of_a_page_run_in_their_order(
    name: str, demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On few samples: what the pages show of all of them is written by docs/refresh.py."""
    monkeypatch.setenv("CKPTSWAP_LIMIT", "9")
    monkeypatch.setattr(sys, "executable", programs.python())
    text = PAGES[name].read_text("utf-8")
    shown = {block.start: after.language == "text" for block, after in zip(
        refresh.blocks(text), refresh.blocks(text)[1:], strict=False)}  # fmt: skip
    try:
        for block, said in refresh.outputs(text, demo_folder):
            assert said.strip() or not shown.get(block.start), f"nothing is printed by\n{block.body}"
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error.cmd}\n{error.stdout}\n{error.stderr}")


def test_only_making_environments_is_left_out_of_the_readme() -> None:
    skipped = [block for block in refresh.blocks((ROOT / "README.md").read_text("utf-8")) if block.is_skipped]
    assert [block.mark for block in skipped] == ["not run in the tests: it makes an environment"] * 2


@pytest.mark.parametrize(("page", "writer"), [("cli.md", "cli_page"), ("schemas.md", "schemas_page")])
def test_generated_pages_follow_the_code(page: str, writer: str) -> None:
    written = getattr(script("reference_pages"), writer)()
    assert (ROOT / "docs/reference" / page).read_text("utf-8") == written, "python docs/reference_pages.py"


def test_what_is_refreshed_keeps_everything_but_outputs(tmp_path: Path) -> None:
    text = "a\n```sh\necho new\n```\n```text\nold\n```\nb\n<!-- not run: x -->\n```text\nkept\n```\n"
    assert refresh.refreshed(text, tmp_path) == text.replace("old", "new")


def test_public_names_are_in_the_library_reference() -> None:
    import ckptswap

    text = (ROOT / "docs/reference/library.md").read_text("utf-8")
    assert [name for name in ckptswap.__all__ if name != "__version__" and name not in text] == []
