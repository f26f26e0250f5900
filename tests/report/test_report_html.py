"""The page in a real browser: offline, with names from a stranger's file, at two widths, on paper, and large."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
from playwright.sync_api import Browser, Page, sync_playwright

from ckptswap.report.answer import answer
from ckptswap.report.html import About, row_commands, sweep_html
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


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
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
        page.wait_for_function(
            "() => Object.keys(DATA.figures).every(id => document.querySelector(`#${id} .main-svg`))"
        )
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


def test_it_opens_offline_with_answer_pictures_findings_samples_rows_and_origin(show: Open) -> None:
    page = show(samples.sweep())
    for sentence in answer(samples.sweep()):
        assert sentence in page.inner_text(".answer")
    ids = page.locator(".plot").evaluate_all("plots => plots.map(each => each.id)")
    assert ids == ["heatmap-0", "bars-0", "scatter-0", "depth-0"]
    assert page.locator(".heatmaplayer image").count() > 0
    assert page.locator(".finding .verdict").all_inner_texts() == ["undecided", "supported"]
    assert page.locator("#rows tbody tr").count() == len(samples.sweep().rows)
    assert page.locator(".strip img").evaluate_all("all => all.map(each => each.naturalWidth)") == [1] * 4
    assert page.locator(".facts td").all_inner_texts() == ["ckptswap sweep", "–"]


def test_it_is_one_file_under_seven_megabytes() -> None:
    text = sweep_html(samples.sweep(), About(ORIGIN, None))
    assert len(text.encode()) < 7_000_000
    assert "This run kept none" in text


def test_every_status_is_distinct_in_the_heatmap(show: Open) -> None:
    page = show(samples.sweep())
    marks = set(page.locator("#heatmap-0 .heatmap-label").all_text_contents())
    assert marks == {"=", "·", "×", "!", "u"}
    z = page.evaluate("DATA.figures['heatmap-0'].data[0].z")
    assert any(value is None for line in z for value in line)
    scale = page.evaluate("DATA.figures['heatmap-0'].data[0]")
    assert scale["zmin"] == -scale["zmax"]
    page.locator("#pictures summary").click()
    page.wait_for_selector("#pictures details td")
    words = page.locator("#pictures details td").all_text_contents()
    assert {"identical", "no-effect", "mismatch", "failed", ""} <= set(words)


def test_the_heatmap_tells_numbers_under_the_mouse(show: Open) -> None:
    page = show(samples.sweep())
    page.locator("#heatmap-0").scroll_into_view_if_needed()
    page.locator("#heatmap-0 .nsewdrag").hover(position={"x": 5, "y": 5})
    page.wait_for_selector("#heatmap-0 .hoverlayer text")
    said = page.locator("#heatmap-0 .hoverlayer").text_content()
    assert said
    assert "encoder.0.conv1" in said


def test_the_mouse_and_the_table_below_the_heatmap_tell_what_the_rows_do(show: Open) -> None:
    row = Row("a", "conv.bias", ("a",), 36864, "measured", rank=1, rmse=0.5, score=0.4, drop=0.5, sim_low=0.25,
              sim_high=0.75, verdict="sensitive")  # fmt: skip
    odd = Row("$b$<i>", "conv.bias", ("b",), 4, "failed", reason="no <b>number</b>")
    cell = Cell(("layer", "kind"), "c", "conv.bias", ("c",), 4, "measured")
    order = ("a", odd.layer or "", "c")
    result = SweepResult("dice", "max", 0.01, 0.9, None, 8, (row, odd), layers=order)
    page = show(result, About(ORIGIN, KEPT, (cell,)))
    measured, marked = page.evaluate("DATA.figures['heatmap-0'].data")
    told = measured["hovertext"][0][0].split("<br>")
    assert {"layer a", "numel 36.9k", "drop +0.5000", "verdict sensitive"} <= set(told)
    assert "simultaneous [+0.2500, +0.7500]" in told
    assert "&#36;b&#36;&#60;i&#62;" in measured["hovertext"][1][0]
    assert measured["z"] == [[0.5], [None], [None]]
    assert marked["text"] == [[""], ["!"], ["…"]]
    assert measured["hovertext"][2][0] == "c<br>conv.bias<br>not scored yet"
    assert page.evaluate("DATA.figures['bars-0'].data[0].hovertext[0]") == measured["hovertext"][0][0]
    page.locator("#pictures summary").click()
    page.wait_for_selector("#pictures details td")
    assert page.locator("#pictures details td").all_text_contents() == ["+0.5000", "failed", "not scored yet"]
    assert page.inner_text(".answer").endswith("1 is failed, 1 is not scored yet.")


def test_no_button_sends_a_chart_away(show: Open) -> None:
    page = show(samples.sweep())
    names = page.locator(".modebar-btn").evaluate_all("all => all.map(each => each.getAttribute('data-title'))")
    assert "Zoom in" in names
    assert not [name for name in names if "hare" in name or "loud" in name]
    assert page.evaluate("document.getElementById('bars-0')._context.plotlyServerURL") == ""
    assert page.locator("[role=img]").count() == 0


# Working with the table ------------------------------------------------------------------------------------------


def test_the_filter_takes_every_word(show: Open) -> None:
    page = show(samples.sweep())
    page.fill("#filter", "ENCODER.0 running_var")
    assert layers(page) == ["encoder.0.conv1", "encoder.0.conv2"]
    assert page.inner_text("#shown") == f"2 of {len(samples.sweep().rows)} rows"
    page.fill("#filter", "")
    assert len(layers(page)) == len(samples.sweep().rows)


def test_a_click_sorts_by_a_column_and_what_is_missing_comes_last(show: Open) -> None:
    page = show(samples.sweep())
    head = page.locator("#table th", has_text="drop")
    known = sorted(row.drop for row in samples.sweep().rows if row.drop is not None)
    for way, order in (("descending", known[::-1]), ("ascending", known)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == way
        shown = drops(page)
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


def test_the_keyboard_reaches_filter_sorting_and_copying(show: Open) -> None:
    page = show(samples.sweep())
    page.focus("#filter")
    reached = []
    for _ in range(page.locator("#table th button").count() + 2):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert "BUTTON" in reached
    assert "copy" in reached
    page.focus("#table th button")
    page.keyboard.press("Enter")
    assert page.locator("#table th").first.get_attribute("aria-sort") != "none"


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
    assert page.locator(".copy").count() == 0


@pytest.mark.parametrize(("recipient", "donor"), [("b", "zeros"), ("b\x1b", "a"), ("b", "a\nrm")])
def test_neither_has_a_row_of_a_made_donor_or_a_path_with_control_characters(recipient: str, donor: str) -> None:
    row = Row("a", "conv.bias", ("a",), 8, "measured", rank=1, drop=0.1)
    assert row_commands([row], Provenance(recipient, (donor,), {}))["rows"] == [None]
    assert row_commands([row], ORIGIN)["rows"] == [[0, 1]]


# How it looks ----------------------------------------------------------------------------------------------------


def paper(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_it_follows_the_system_and_the_button(show: Open) -> None:
    page = show(samples.sweep(), color_scheme="dark")
    assert paper(page) == "rgb(15, 19, 24)"
    assert page.evaluate("document.getElementById('heatmap-0').layout.paper_bgcolor") == "#0f1318"
    page.click("#theme")
    assert paper(page) == "rgb(255, 255, 255)"
    assert page.evaluate("document.getElementById('heatmap-0').layout.paper_bgcolor") == "#fff"


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out(show: Open, width: int, tmp_path: Path) -> None:
    page = show(
        samples.sweep("a.very.long.path.of.a.layer.{}.that.goes.on.conv{}"),
        viewport={"width": width, "height": 800},
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for plot in page.locator(".plot").all():
        box = plot.bounding_box()
        assert box
        assert 0.8 * min(width, 1000) < box["width"] <= width


def test_on_paper_there_are_all_rows_and_no_buttons(show: Open) -> None:
    page = show(samples.sweep())
    page.emulate_media(media="print")
    assert not page.locator("#theme, .filter, .copy").filter(visible=True).count()
    assert page.evaluate("getComputedStyle(document.querySelector('#rows .wide')).overflow") == "visible"
    heads = page.locator("#table th").evaluate_all("all => all.map(each => getComputedStyle(each).display)")
    assert heads == ["table-cell"] * (len(heads) - 1) + ["none"]
    page.locator("#pictures details").evaluate("details => { details.open = true; }")
    page.wait_for_selector("#pictures details td")
    assert page.locator("#pictures details th").last.is_visible()
    assert page.locator("#pictures details thead th").last.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_from_dark_every_picture_is_light_on_paper_and_dark_again(show: Open) -> None:
    page = show(samples.sweep(), color_scheme="dark")
    colours = "Object.keys(DATA.figures).map(id => document.getElementById(id).layout.paper_bgcolor)"
    assert set(page.evaluate(colours)) == {"#0f1318"}
    now = page.evaluate(f"(window.dispatchEvent(new Event('beforeprint')), {colours})")
    assert set(now) == {"#fff"}
    assert paper(page) == "rgb(255, 255, 255)"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"() => {colours}.every(each => each === '#0f1318')")
    assert paper(page) == "rgb(15, 19, 24)"


# Names, sizes, and what only some runs have ----------------------------------------------------------------------


def test_names_from_a_file_stay_text(show: Open) -> None:
    names = itertools.cycle([*samples.HOSTILE, *MARKUP])

    def odd(name: str) -> str:
        return f"{next(names)}{name}"

    about = About(Provenance(odd("b"), (odd("a"),), {odd("k"): odd("v")}), kept(layer=odd("l")))
    page = show(samples.sweep(rename=odd), about)
    assert page.locator("script").count() == 3
    inside = "main img:not(.tile img), main b, main red, main [onmouseover], main [onerror], main a"
    assert page.locator(inside).count() == 0
    assert page.locator("svg a, svg image[href^=javascript]").count() == 0
    assert "<script>alert(1)</script>" in (page.text_content("#table") or "")
    assert "\x1b" not in page.content()
    assert any("$" in name for name in page.locator("#bars-0 .ytick text").all_text_contents())
    page.locator("#heatmap-0").hover()


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
    assert page.locator("#bars-0 .ytick text").all_text_contents() == ["lstm some.weight", "conv some.weight"]


@pytest.mark.parametrize(
    ("mode", "rows", "donors"), [("only", 5000, 1), ("only", 900, 4), ("all-but", 900, 1), ("prefix", 900, 1)]
)
def test_thousands_of_rows_stay_under_seven_megabytes(mode: Mode, rows: int, donors: int) -> None:
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
    assert len(sweep_html(result, About(Provenance("b", files, {}))).encode()) < 7_000_000


def test_five_thousand_rows_open_filter_and_sort(show: Open) -> None:
    known = {"score": 0.5, "sim_low": 0.0, "sim_high": 1.0, "ci_low": 0.0, "ci_high": 1.0, "samples": 8}
    rows = tuple(
        Row(f"block.{at // 5}.conv", f"conv.k{at % 5}", (f"block.{at}",), at, "measured", rank=at + 1,
            rmse=0.1 + at, drop=1 / (at + 1), **known)  # type: ignore[arg-type]
        for at in range(5000)
    )  # fmt: skip
    page = show(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    assert page.locator("#table tbody tr").count() == 5000
    page.fill("#filter", "block.999.conv k3")
    assert layers(page) == ["block.999.conv"]
    page.fill("#filter", "")
    page.locator("#table th", has_text="RMSE").locator("button").click()
    assert page.locator("#table tbody tr td:nth-child(2)").first.text_content() == "block.999.conv"
    page.evaluate("document.querySelector('#rows .wide').scrollTo(0, 1e6)")
    assert page.locator("#table tbody tr").last.is_visible()


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
    ids = page.locator(".plot").evaluate_all("plots => plots.map(each => each.id)")
    assert {"paths-0", "paths-1", "heatmap-1"} <= set(ids)
    assert page.evaluate("DATA.figures['paths-0'].data[0].y") == [0, 0.2, 0.5]
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
    ids = page.locator(".plot").evaluate_all("plots => plots.map(each => each.id)")
    assert ids == ["curve-0", "bars-0", "race-0"]
    curve = page.evaluate("DATA.figures['curve-0']")
    assert curve["data"][0]["y"] == pytest.approx([0, 0.1, 0.2])
    assert curve["layout"]["xaxis"]["ticktext"] == ["stem", "mid", "head"]
    assert page.evaluate("DATA.figures['race-0'].data[0].x") == [4, 6, 8]


def test_without_a_measured_row_it_says_so(browser: Browser, tmp_path: Path) -> None:
    text = sweep_html(SweepResult("dice", "max", 0.01, 0.9, None, 8, ()), About(ORIGIN))
    (tmp_path / "page.html").write_text(text)
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert "Nothing is scored yet" in page.inner_text(".answer")
    assert page.locator(".plot").count() == 0
    page.close()
    assert errors == []


def test_top_leaves_rows_out_and_says_how_many(show: Open) -> None:
    text = sweep_html(samples.sweep(), About(ORIGIN), top=2)
    assert text.count("<tr><td") == 4
    assert f"{len(samples.sweep().rows) - 4} more rows are left out by --top" in text
