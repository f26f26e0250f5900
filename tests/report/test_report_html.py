"""The page in a real browser: offline, with names from a stranger's file, at two widths, on paper, and large."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
from playwright.sync_api import Browser, Page, sync_playwright

from ckptswap.report import charts
from ckptswap.report.answer import answer
from ckptswap.report.html import CAP, VERDICTS, About, row_commands, sweep_html
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.provenance import Provenance
from ckptswap.sweep.result import Barrier, DonorScore, Mode, Point, Recalibrated, Row, SweepResult
from ckptswap.sweep.run_folder.samples import Hit, Samples

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ORIGIN = Provenance("b.safetensors", ("a donor.safetensors",), {"command": "ckptswap sweep", "begun": None})
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
MARKUP = (
    "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    "<a href='javascript:alert(4)'>x</a>",
    '" onmouseover="alert(5)',
    "$\\frac{1}{2}$",
)
HIT = Hit("head", "conv.bias", 0, 7, 0.9, 0.2, 0.7, dict.fromkeys(("input", "truth", "baseline", "variant"), DOT))
KEPT = Samples("dice", (HIT,))


def kept(**changed: Any) -> Samples:
    return Samples("dice", (dataclasses.replace(HIT, **changed),))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a chromium")
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


Open = Callable[..., Page]


@pytest.fixture(scope="module")
def sample_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    yield from (opener(samples.sweep()) for opener in _opener(browser, tmp_path_factory.mktemp("sample")))


@pytest.fixture
def sample(sample_page: Page) -> Page:
    """The page of `report_samples.sweep`, as it is when it opens; one for all tests that need no other."""
    sample_page.reload()
    sample_page.mouse.move(1, 1)
    return sample_page


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    yield from _opener(browser, tmp_path)


def _opener(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """`show(result, about, **context)` opens the page from a file without a network; no complaint is let pass."""
    said: list[str] = []
    contexts = []

    def opened(result: SweepResult, about: About = About(ORIGIN, KEPT), **how: Any) -> Page:
        file = tmp_path / "a report.html"
        file.write_text(sweep_html(result, about), "utf-8")
        context = browser.new_context(offline=True, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def layers(page: Page) -> list[str]:
    return page.locator("#table tbody tr:not([hidden]) td:nth-child(2)").all_text_contents()


def drops(page: Page) -> list[str]:
    return page.locator("#table tbody tr td:nth-child(7)").all_text_contents()


# What is there ---------------------------------------------------------------------------------------------------


def figures(page: Page) -> list[str]:
    return page.locator("figure[id]").evaluate_all("all => all.map(each => each.id)")


def heat(page: Page, id: str = "heatmap-0") -> list[list[str]]:
    """The heatmap's cells, as text."""
    table = f"#{id} .heat tbody tr"
    lines: list[list[str]] = page.locator(table).evaluate_all(
        "rows => rows.map(row => [...row.cells].slice(1).map(cell => cell.textContent.trim()))"
    )
    return lines


def test_it_opens_offline_with_answer_pictures_findings_samples_rows_and_origin(sample: Page) -> None:
    for sentence in answer(samples.sweep(), whole=True):
        assert sentence in sample.inner_text(".answer")
    assert figures(sample) == ["heatmap-0", "bars-0", "scatter-0", "depth-0"]
    bars = sample.locator("#bars-0 tbody th").all_inner_texts()
    assert tuple(map(str.strip, bars)) == charts.bars(samples.sweep()).series[0].x
    assert sample.locator("#heatmap-0 tbody th").first.inner_text().strip() == "encoder.0.conv1"
    assert sample.locator(".finding .verdict").all_inner_texts() == ["undecided", "supported"]
    assert sample.locator("#rows tbody tr").count() == len(samples.sweep().rows)
    assert sample.locator(".strip img").evaluate_all("all => all.map(each => each.naturalWidth)") == [1] * 4
    assert sample.locator(".facts td").all_inner_texts() == ["ckptswap sweep", "–"]
    anchors = sample.locator(".contents a").evaluate_all("all => all.map(each => each.hash.slice(1))")
    assert anchors == ["findings", "pictures", "rows", "next", "more", "samples", "origin"]
    assert sample.locator("section").evaluate_all("all => all.map(each => each.id)") == anchors


def test_it_is_one_small_file() -> None:
    text = sweep_html(samples.sweep(), About(ORIGIN, None))
    assert len(text.encode()) < 100_000
    assert set(re.findall("(?:src|href)=[\"']?(.)", text)) == {"#"}
    assert "This run kept none" in text


def test_every_status_is_distinct_in_the_heatmap(sample: Page) -> None:
    cells = sample.locator("#heatmap-0 tbody td")
    looks = set(
        cells.evaluate_all("all => all.map(each => `${each.className} ${each.textContent.trim()} ${each.title}`)")
    )
    marks = {look for look in looks if look.startswith("marked")}
    assert marks == {"marked = identical", "marked · no-effect", "marked × mismatch", "marked ! failed"}
    assert "costs u unused" in looks
    assert "  " in looks
    colours = cells.evaluate_all("""all => Object.fromEntries(all.filter(each => each.className === "costs")
        .map(each => [each.style.getPropertyValue("--share"), getComputedStyle(each).backgroundImage]))""")
    assert len(set(colours.values())) == len(colours) > 20
    assert "rgba(213, 94, 0, 0.8)" in colours["1.0"]


def test_the_heatmap_marks_the_tolerance_on_its_key(sample: Page) -> None:
    dashes = sample.locator("#heatmap-0 .ramp i").evaluate_all(
        "all => all.map(each => parseFloat(each.style.left))"
    )
    scale = charts.heat(samples.sweep()).scale
    ends = [50 * (1 + scale.place(bound)) for bound in (-scale.tolerance, scale.tolerance)]
    assert sorted(dashes) == pytest.approx(ends, abs=0.01)
    assert "Dashes: the tolerance, 0.0091." in sample.inner_text("#heatmap-0")


def test_the_mouse_tells_what_the_table_does(show: Open) -> None:
    row = Row("a", "conv.bias", ("a",), 36864, "measured", rank=1, rmse=0.5, score=0.4, drop=0.5, sim_low=0.25,
              sim_high=0.75, verdict="sensitive")  # fmt: skip
    odd = Row("$b$<i>", "conv.bias", ("b",), 4, "failed", reason="no <b>number</b>")
    cell = Cell(("layer", "kind"), "c", "conv.bias", ("c",), 4, "measured")
    order = ("a", odd.layer or "", "c")
    result = SweepResult("dice", "max", 0.01, 0.9, None, 8, (row, odd), layers=order, complete=False)
    page = show(result, About(ORIGIN, KEPT, (cell,)))
    assert heat(page) == [["+0.5"], ["!"], ["…"]]
    page.locator("#heatmap-0 td").first.hover()
    told = page.inner_text("#tip").splitlines()
    assert {"layer a", "numel 36.9k", "drop +0.5000", "verdict sensitive"} <= set(told)
    assert "simultaneous [+0.2500, +0.7500]" in told
    page.locator("#heatmap-0 td").nth(1).hover()
    assert page.inner_text("#tip").splitlines()[0] == "layer $b$<i>"
    assert "no <b>number</b>" in page.inner_text("#tip")
    assert page.locator("#heatmap-0 td").nth(2).get_attribute("title") == "not scored yet"
    page.locator("#bars-0 tbody tr").hover()
    assert page.inner_text("#tip").splitlines() == told
    page.locator("#scatter-0 .points").hover()
    assert page.inner_text("#tip").splitlines() == told
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()
    assert page.inner_text(".answer").endswith("1 is failed, 1 is not scored yet.")
    assert "Not finished, and no sweep is at work on it" in page.inner_text(".unfinished")


# Working with the table ------------------------------------------------------------------------------------------


def test_the_filter_takes_every_word(sample: Page) -> None:
    sample.fill("#filter", "ENCODER.0 running_var")
    assert layers(sample) == ["encoder.0.conv1", "encoder.0.conv2"]
    assert sample.inner_text("#shown") == f"2 of {len(samples.sweep().rows)} rows"
    sample.fill("#filter", "")
    assert len(layers(sample)) == len(samples.sweep().rows)


def verdicts(page: Page) -> set[str]:
    column = page.locator("#table tbody tr:not([hidden]) td:nth-child(11)")
    return {text.split()[0] for text in column.all_text_contents()}


def test_verdicts_filter_by_mouse_and_keyboard_together_with_the_search(sample: Page) -> None:
    rows = samples.sweep().rows
    count = Counter(row.verdict if row.status == "measured" else row.status for row in rows)
    chips = sample.locator(".chip")
    shown = {"sensitive", "undecided", "reusable", "unused", "identical", "no-effect", "mismatch", "failed"}
    assert chips.all_inner_texts() == [f"{name} {count[name]}" for name in VERDICTS]
    assert set(VERDICTS) == shown
    sample.click(".chip.sensitive")
    assert verdicts(sample) == {"sensitive"}
    assert len(layers(sample)) == count["sensitive"]
    sample.focus(".chip.failed")
    sample.keyboard.press("Space")
    assert verdicts(sample) == {"sensitive", "failed"}
    sample.fill("#filter", "head")
    assert layers(sample) == ["head"]
    assert sample.inner_text("#shown") == f"1 of {len(rows)} rows"
    sample.fill("#filter", "")
    sample.click(".chip.failed")
    sample.click(".chip.sensitive")
    assert len(layers(sample)) == len(rows)


def test_the_verdicts_are_explained_by_a_click_or_a_key(sample: Page) -> None:
    help = sample.locator("#verdicts")
    assert not help.locator("dl").is_visible()
    help.locator("summary").click()
    assert help.locator("dt").all_inner_texts() == ["reusable", "unused", "sensitive", "undecided"]
    assert "below the tolerance, 0.0091" in help.inner_text()
    sample.focus("#verdicts summary")
    sample.keyboard.press("Enter")
    assert not help.locator("dl").is_visible()


def test_what_to_do_next_is_copied_as_it_is_typed(sample: Page) -> None:
    sample.evaluate("""Object.defineProperty(navigator, "clipboard", {value: {
        writeText: text => { window.copied = text; return Promise.resolve(); }}})""")
    sample.locator("#next .copy").last.click()
    sample.wait_for_function("() => window.copied")
    command = sample.locator("#next code").last.inner_text()
    assert sample.evaluate("window.copied") == command
    assert shlex.split(command)[:6] == [
        "ckptswap", "transplant", "--from", "a donor.safetensors", "--to", "b.safetensors"
    ]  # fmt: skip


def test_a_click_sorts_by_a_column_and_what_is_missing_comes_last(sample: Page) -> None:
    head = sample.locator("#table th", has_text="drop")
    known = sorted(row.drop for row in samples.sweep().rows if row.drop is not None)
    for way, order in (("descending", known[::-1]), ("ascending", known)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == way
        shown = drops(sample)
        assert [float(each.replace("−", "-")) for each in shown[: len(known)]] == pytest.approx(order, abs=1e-4)
        assert set(shown[len(known) :]) == {"–"}


def test_intervals_sort_by_their_lower_ends(show: Open) -> None:
    lows = (-0.02, 0.1, -0.1, 9e-7, None, 0.01)
    rows = tuple(
        Row(f"l{at}", "conv.bias", (f"l{at}",), 10 ** (at + 2), "measured", drop=0.1, sim_low=low,
            sim_high=None if low is None else 1.0)
        for at, low in enumerate(lows)
    )  # fmt: skip
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    head = page.locator("#table th", has_text="simultaneous")
    head.locator("button").click()
    assert layers(page) == ["l1", "l5", "l3", "l0", "l2", "l4"]
    head.locator("button").click()
    assert layers(page) == ["l2", "l0", "l3", "l5", "l1", "l4"]
    page.locator("#table th", has_text="numel").locator("button").click()
    assert layers(page) == ["l5", "l4", "l3", "l2", "l1", "l0"]


def test_names_sort_by_letters_and_numbers(show: Open) -> None:
    rows = tuple(Row(f"conv{at}", "conv.bias", (f"c{at}",), 1, "measured", drop=0.1) for at in (10, 9, 1))
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    page.locator("#table th", has_text="layer").locator("button").click()
    assert layers(page) == ["conv1", "conv9", "conv10"]


def test_the_keyboard_reaches_filter_help_sorting_and_copying(sample: Page) -> None:
    sample.focus("#filter")
    reached = []
    for _ in range(sample.locator("#table th button, .chip").count() + 4):
        sample.keyboard.press("Tab")
        reached.append(sample.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert {"chip sensitive", "SUMMARY", "BUTTON", "copy"} <= set(reached)
    sample.focus("#table th button")
    sample.keyboard.press("Enter")
    assert sample.locator("#table th").first.get_attribute("aria-sort") != "none"


@pytest.mark.parametrize("with_clipboard", [True, False])
def test_copy_gives_the_command_of_the_row(show: Open, with_clipboard: bool) -> None:
    names = ("it's $(odd).weight", "plain.bias")
    rows = (Row("odd", None, names, 8, "measured", rank=1, drop=0.1),)
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    page.evaluate(
        """has => {
            const clip = {writeText: text => has ? (window.copied = text, Promise.resolve()) : Promise.reject()};
            Object.defineProperty(navigator, "clipboard", {value: clip});
            document.execCommand = () => { window.copied = document.activeElement.value; };
        }""",
        with_clipboard,
    )
    page.click(".copy")
    page.wait_for_function("() => window.copied")
    assert "--only '=it'\"'\"'s $(odd).weight' --only '=plain.bias'" in page.evaluate("window.copied")
    assert page.evaluate("document.activeElement.className") == "copy"
    assert page.get_attribute(".copy", "aria-label") == "copy the command of odd (all)"
    words = shlex.split(page.evaluate("window.copied"))
    assert words[:6] == ["ckptswap", "transplant", "--from", "a donor.safetensors", "--to", "b.safetensors"]
    assert words[6:] == ["--only", f"={names[0]}", "--only", f"={names[1]}"]
    assert page.inner_text(".copy") == "copied"


def test_what_no_command_can_take_has_no_button(show: Open) -> None:
    rows = (
        Row("a", "conv.bias", ("a\x1b[201~rm",), 8, "measured", rank=1, drop=0.1),
        Row("b", "conv.bias", ("b",), 8, "mismatch", reason="it does not fit"),
    )
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    assert page.locator("#table tbody .command").all_inner_texts() == ["–", "–"]
    assert page.locator(".copy").count() == 0


@pytest.mark.parametrize(("recipient", "donor"), [("b", "zeros"), ("b\x1b", "a"), ("b", "a\nrm")])
def test_neither_has_a_row_of_a_made_donor_or_a_path_with_control_characters(recipient: str, donor: str) -> None:
    row = Row("a", "conv.bias", ("a",), 8, "measured", rank=1, drop=0.1)
    assert row_commands([row], Provenance(recipient, (donor,), {}))["rows"] == [None]
    assert row_commands([row], ORIGIN)["rows"] == [[0, 1]]


# How it looks ----------------------------------------------------------------------------------------------------


def paper(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def ink(page: Page) -> str:
    """Of what is written in the pictures."""
    return page.evaluate("getComputedStyle(document.querySelector('#scatter-0 text')).fill")


def test_it_follows_the_system_and_the_button_and_paper_is_light(sample: Page) -> None:
    sample.emulate_media(color_scheme="dark")
    sample.wait_for_function("document.documentElement.dataset.theme === 'dark'")  # the page is told a frame later
    assert (paper(sample), ink(sample)) == ("rgb(15, 19, 24)", "rgb(230, 237, 243)")
    sample.emulate_media(color_scheme="dark", media="print")
    assert (paper(sample), ink(sample)) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    sample.emulate_media(color_scheme="dark", media="screen")
    sample.click("#theme")
    assert (paper(sample), ink(sample)) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    sample.emulate_media(color_scheme="light")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out(show: Open, width: int) -> None:
    page = show(
        samples.sweep("a.very.long.path.of.a.layer.{}.that.goes.on.conv{}"),
        viewport={"width": width, "height": 800},
    )
    page.locator("#verdicts summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("figure[id]").count() == 4
    lines = page.locator("#bars-0 tbody th").evaluate_all("all => all.map(each => each.offsetHeight)")
    assert (max(lines) < 30) == (width > 1000), "names stand in one line where there is room"
    for figure in page.locator("figure[id]").all():
        box = figure.bounding_box()
        assert box
        assert 0.8 * min(width, 1000) < box["width"] <= width


def test_on_paper_there_are_all_rows_and_no_buttons(sample: Page) -> None:
    sample.emulate_media(media="print")
    assert not sample.locator("#theme, .filter, .copy").filter(visible=True).count()
    for box in ("#rows .wide", "#pictures .wide"):
        assert sample.locator(box).evaluate("box => getComputedStyle(box).overflow") == "visible"
    heads = sample.locator("#table th").evaluate_all("all => all.map(each => getComputedStyle(each).display)")
    assert heads == ["table-cell"] * (len(heads) - 1) + ["none"]
    assert sample.locator("#heatmap-0 th").last.is_visible()
    assert sample.pdf().startswith(b"%PDF")
    sample.emulate_media(media="screen")


# Names, sizes, and what only some runs have ----------------------------------------------------------------------


def test_names_from_a_file_stay_text(show: Open) -> None:
    names = itertools.cycle([*samples.HOSTILE, *MARKUP])

    def odd(name: str) -> str:
        return f"{next(names)}{name}"

    about = About(Provenance(odd("b"), (odd("a"),), {odd("k"): odd("v")}), kept(layer=odd("l")))
    page = show(samples.sweep(rename=odd), about)
    assert page.locator("script").count() == 2
    inside = "main img:not(.tile img), main b, main red, main [onmouseover], main [onerror], main a:not(nav a)"
    assert page.locator(inside).count() == 0
    assert page.locator("svg a, svg image[href^=javascript]").count() == 0
    assert "<script>alert(1)</script>" in (page.text_content("#table") or "")
    assert "\x1b" not in page.content()
    for name in ("$\\frac{1}{2}$", "<img src=x onerror=alert(3)>"):
        assert any(name in text for text in page.locator("#bars-0 th").all_text_contents())
    for part in ("#heatmap-0 td[data-row]", "#bars-0 tr[data-row]"):
        for cell in page.locator(part).all()[:6]:
            cell.hover()
            assert page.inner_text("#tip")
            assert page.locator("#tip *").count() == 0


def test_nothing_hidden_in_a_sample_or_an_attribute_runs(browser: Browser, tmp_path: Path) -> None:
    attack = "1\"><img src=x onerror='window.ran = 1'>"
    (tmp_path / "page.html").write_text(sweep_html(samples.sweep(), About(ORIGIN, kept(sample=attack))))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert attack in page.inner_text(".strip p")
    assert page.locator(".tile img").count() == page.locator("img").count() == 4
    page.evaluate("""document.body.insertAdjacentHTML("beforeend",
        "<img src=x onerror='window.ran = 1'><a id=bad href='javascript:window.ran = 1'>x</a>")""")
    page.click("#bad")
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    policy = page.get_attribute("meta[http-equiv]", "content") or ""
    assert "base-uri 'none'; form-action 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    page.close()


def test_samples_name_their_metric_and_are_not_shown_under_another() -> None:
    text = sweep_html(samples.sweep(), About(ORIGIN, KEPT))
    assert "sample 7, a drop of +0.7 in dice" in text
    other = sweep_html(dataclasses.replace(samples.sweep(), metric="mse"), About(ORIGIN, KEPT))
    assert "the worst by dice, this report is about mse" in other
    assert 'class="strip"' not in other


def test_what_a_row_takes_is_said_above_the_table_and_at_the_samples() -> None:
    text = sweep_html(dataclasses.replace(samples.sweep(), mode="all-but"), About(ORIGIN, KEPT))
    assert "Each row: all but this from the donor." in text
    assert "<p>all but head conv.bias: sample 7" in text
    assert "Each row" not in sweep_html(samples.sweep(), About(ORIGIN, KEPT))


def test_rows_on_fewer_samples_have_a_column_and_without_a_race_none_is_named() -> None:
    rows = (
        Row("a", "conv.bias", ("a",), 8, "measured", rank=1, drop=0.1, samples=4),
        Row("b", "conv.bias", ("b",), 8, "measured", rank=2, drop=0.1, samples=8),
    )
    text = sweep_html(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows), About(ORIGIN))
    body = text[text.index("<main>") : text.index("</main>")]
    assert ">samples</button>" in body
    assert "<td>4<td class=none>" in body
    assert "samples each cell is scored on so far" in body
    assert "race" not in body
    assert ">samples</button>" not in sweep_html(samples.sweep(), About(ORIGIN))


def test_small_numbers_keep_their_digits() -> None:
    rows = tuple(
        Row(f"l{at}", "conv.bias", (f"l{at}",), 8, "measured", rmse=1e-5 * at, score=2e-4, drop=1.234e-5 * at,
            sim_low=1e-5, sim_high=2e-5)
        for at in (1, 2)
    )  # fmt: skip
    text = sweep_html(SweepResult("mse", "min", 1e-6, 1.7e-4, None, 8, rows), About(ORIGIN))
    for shown in ("+1.23e-05", "+2.47e-05", "1.00e-05", "2.00e-04", "[+1.00e-05, +2.00e-05]"):
        assert f"<td>{shown}" in text


def test_tensors_of_one_cell_go_by_their_names_in_the_table(show: Open) -> None:
    takes = (("x", "y"), ("x",), ("y",), ("c",), ("c",))
    rows = tuple(Row("lstm" if names != ("c",) else "conv", "some.weight", names, 8, "measured", rank=1, drop=0.1)
                 for names in takes)  # fmt: skip
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows), About(ORIGIN))
    assert layers(page) == ["lstm", "x", "y", "conv", "c"]
    names = page.locator("#bars-0 tbody th").all_text_contents()
    assert list(map(str.strip, names)) == ["lstm some.weight", "conv some.weight"]


@pytest.mark.parametrize(("mode", "rows", "donors"), [("only", 900, 4), ("all-but", 900, 1), ("prefix", 900, 1)])
def test_thousands_of_rows_stay_under_two_megabytes(mode: Mode, rows: int, donors: int) -> None:
    names = [f"model.layers.{at // 6}.self_attn.block{at % 6}.weight" for at in range(rows)]
    takes = {
        "only": lambda at: (names[at],),
        "all-but": lambda at: tuple(names[:at] + names[at + 1 :]),
        "prefix": lambda at: tuple(names[: at + 1]),
    }[mode]
    known = {"score": 0.51234, "sim_low": -0.0123, "sim_high": 0.0456, "ci_low": 0.0011, "ci_high": 0.0345}
    kind = None if mode == "prefix" else "linear.weight"
    found = tuple(
        Row(name.removesuffix(".weight"), kind, takes(at), 1000, "measured", rank=at + 1, rmse=0.123456,
            drop=1 / (at + 1), donor=donor, samples=8, verdict="undecided", **known)  # type: ignore[arg-type]
        for donor in range(donors) for at, name in enumerate(names)
    )  # fmt: skip
    files = tuple(f"d{at}.safetensors" for at in range(donors))
    scores = tuple(DonorScore(file, 0.5) for file in files) if donors > 1 else ()
    result = SweepResult("dice", "max", 0.01, 0.9, None, 8, found, mode=mode, donors=scores)
    assert len(sweep_html(result, About(Provenance("b", files, {}))).encode()) < 2_000_000


def test_five_thousand_rows_open_filter_and_sort(show: Open) -> None:
    known = {"score": 0.5, "sim_low": 0.0, "sim_high": 1.0, "ci_low": 0.0, "ci_high": 1.0, "samples": 8}
    rows = tuple(
        Row(f"model.layers.block.{at // 5}.conv", f"conv.k{at % 5}", (f"block.{at}",), at, "measured", rank=at + 1,
            rmse=0.1 + at, drop=1 / (at + 1), verdict="undecided", **known)  # type: ignore[arg-type]
        for at in range(5000)
    )  # fmt: skip
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    assert len(page.content()) < 3_000_000
    assert page.locator("#table tbody tr").count() == 5000
    assert page.locator("#table tbody tr:not(.over)").count() == CAP
    assert page.locator("#table tbody .over").first.is_hidden()
    assert page.inner_text("#shown") == f"the first {CAP} of 5,000 rows"
    page.fill("#filter", "block.999.conv k3")
    assert layers(page) == ["model.layers.block.999.conv"]
    assert page.locator("#every").is_hidden()
    page.fill("#filter", "")
    page.locator("#table th", has_text="RMSE").locator("button").click()
    assert page.locator("#table tbody tr td:nth-child(2)").first.text_content() == "model.layers.block.999.conv"
    assert page.locator("#table tbody tr").last.is_hidden()
    assert page.inner_text("#every") == "show all 5,000"
    page.fill("#filter", "k3")
    assert page.inner_text("#shown") == f"the first {CAP} of 1,000 of 5,000 rows"
    page.click("#every")
    assert page.inner_text("#shown") == "1,000 of 5,000 rows"
    assert page.locator("#table tbody tr:not([hidden])").last.is_visible()


def test_paths_new_statistics_and_several_donors_have_their_place(show: Open) -> None:
    row = Row(
        "c", "conv.bias", ("c.bias",), 4, "measured", rank=1, drop=0.5, score=0.4, samples=8,
        path=(Point(0.5, 0.7, 0.2, 0.1, 0.3),), barrier=Barrier(0.5, 0.05, None, None),
        recalibrated=Recalibrated(score=0.8, drop=0.1),
    )  # fmt: skip
    rows = (row, dataclasses.replace(row, donor=1, drop=0.25))
    donors = (DonorScore("a donor.safetensors", 0.3), DonorScore("zeros", None))
    result = SweepResult("dice", "max", 0.01, 0.9, 0.3, 8, rows, donors=donors, recalibrated_baseline=0.91)
    page = show(result, About(Provenance("b", ("a donor.safetensors", "zeros"), {})))
    assert {"paths-0", "paths-1", "heatmap-1"} <= set(figures(page))
    told = page.get_attribute("#paths-0 .points", "data-told") or ""
    assert json.loads(told) == [
        f"c conv.bias\nalpha {alpha}\ndrop in dice {drop}"
        for alpha, drop in (("0", "+0"), ("0.5", "+0.2"), ("1", "+0.5"))
    ]
    assert page.locator("#table th").all_text_contents()[10:13] == ["donor", "barrier", "recal."]
    assert page.locator("#table tbody tr").last.locator("td").nth(10).text_content() == "zeros"


def test_prefixes_are_a_curve_and_a_race_shows_how_far_it_went(show: Open) -> None:
    grown = [("stem",), ("stem", "mid"), ("stem", "mid", "head")]
    rows = tuple(
        Row(names[-1], None, names, 4, "measured", rank=3 - at, drop=0.1 * at, samples=8 - 2 * at)
        for at, names in enumerate(grown)
    )
    result = SweepResult("dice", "max", 0.01, 0.9, 0.3, 8, rows, mode="prefix", layers=("stem", "mid", "head"))
    page = show(result, About(ORIGIN, KEPT, raced_by="dice"))
    assert figures(page) == ["curve-0", "bars-0", "race-0"]
    assert page.locator("#curve-0 .name").all_text_contents() == ["stem", "mid", "head"]
    ends = page.get_attribute("#curve-0 .line", "d") or ""
    heights = [float(point.split()[1]) for point in ends[1:].split("L")]
    assert heights[0] == 300  # nothing is lost
    assert heights[2] == 0  # most
    assert heights[1] < 150  # half as much is more than half as high, by the logarithm
    assert page.locator("#race-0 td:last-child").all_inner_texts() == ["4", "6", "8"]


def test_without_a_measured_row_it_says_so(browser: Browser, tmp_path: Path) -> None:
    text = sweep_html(SweepResult("dice", "max", 0.01, 0.9, None, 8, ()), About(ORIGIN))
    (tmp_path / "page.html").write_text(text)
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert "Nothing is scored yet" in page.inner_text(".answer")
    assert page.locator("figure").count() == 0
    page.close()
    assert errors == []


def test_top_leaves_rows_out_and_says_how_many(show: Open) -> None:
    text = sweep_html(samples.sweep(), About(ORIGIN), top=2)
    assert text[text.index('id="table"') :].partition("</table>")[0].count("<tr><td") == 4
    assert f"{len(samples.sweep().rows) - 4} more rows are left out by --top" in text
