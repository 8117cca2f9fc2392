"""A page in a real browser: it draws, filters, sorts, saves, prints, fits a phone, and is open to everyone."""

import csv
import io
import json
import time

import pytest

from graphsparse.report.html import write_page
from tests.report.page_runs import EVIL, FORMULA, run

PHONE = {"width": 390, "height": 844}


def until(tab, condition):
    """Wait for what a script is about to do; the page's policy forbids playwright's own waiting."""
    deadline = time.monotonic() + 20
    while not tab.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


@pytest.fixture(scope="module")
def opened(browser):
    """Open a page as a reader does; everything that the browser complains of or asks for fails the last test."""
    contexts = []

    def open_page(path, **how):
        context = browser.new_context(**how)
        contexts.append(context)
        context.complaints, context.asked = [], []
        tab = context.new_page()
        tab.on("console", lambda said: context.complaints.append(said.text) if said.type in ("error", "warning") else 0)
        tab.on("pageerror", lambda error: context.complaints.append(str(error)))
        tab.on("request", lambda request: context.asked.append(request.url))
        tab.goto(path.as_uri())
        while (folded := tab.locator("details:not([open]) > summary")).count():
            folded.first.click()
        for box in tab.locator(".chart").all():
            box.scroll_into_view_if_needed()
        until(tab, "[...document.querySelectorAll('.chart')].every((box) => box.querySelector('.main-svg'))")
        return tab

    yield open_page
    for context in contexts:
        assert context.complaints == []
        context.close()


@pytest.fixture(scope="module")
def whole(opened, tmp_path_factory):
    """The page, opened once and drawn: loading it takes longer than any test."""
    return opened(write_page(tmp_path_factory.mktemp("pages") / "one.html", [run()]), color_scheme="light")


@pytest.fixture
def tab(whole):
    """The page as it was when it was opened."""
    yield whole
    for button in whole.locator(".legend").get_by_role("button", name="All", exact=True).all():
        button.click()


def traces(tab, chart):
    """Names of the groups that a chart draws."""
    return tab.evaluate(
        "(at) => document.querySelectorAll('.chart')[at].data.filter((t) => t.visible).map((t) => t.meta.group)", chart
    )


def test_charts_are_drawn_and_nothing_is_fetched(tab):
    marks = tab.evaluate(
        "[...document.querySelectorAll('.chart')].map((b) => b.querySelectorAll('.point, .js-line, .bars path').length)"
    )
    assert len(marks) == 4
    assert all(count > 2 for count in marks)
    assert [url for url in tab.context.asked if not url.startswith(("file:", "blob:", "data:"))] == []
    assert tab.evaluate("window.hacked") is None  # no label has become a part of the page
    assert tab.locator("main img").count() == 0
    assert EVIL in tab.locator("h1").inner_text()


def test_a_click_in_the_legend_filters_charts_and_tables(tab):
    section = tab.locator("details.section").first
    key = section.get_by_role("button", name="random")
    rows = section.locator("tbody tr:visible")
    assert rows.count() == 3
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    assert traces(tab, 0) == ["dense", "dense", "teddy", EVIL]
    assert rows.count() == 2
    section.get_by_role("button", name="teddy").dblclick()
    assert traces(tab, 0) == ["teddy"]
    section.get_by_role("button", name="All", exact=True).click()
    assert set(traces(tab, 0)) == {"dense", "teddy", "random", EVIL}
    assert len(traces(tab, 1)) == 2  # another section has a legend of its own


def test_tables_are_sorted_by_value(tab):
    table = tab.locator("table").first
    head = table.get_by_role("button", name="test accuracy, %")
    head.click()
    assert table.locator("tbody th").all_inner_texts() == ["random", "teddy", EVIL]  # 9.5, 70.5, 81.2: not as text
    head.click()
    assert table.locator("tbody th").first.inner_text() == EVIL
    assert table.locator("th[aria-sort=descending]").count() == 1
    missing = table.get_by_role("button", name="missing")
    for _ in range(2):
        missing.click()
        assert table.locator("tbody th").first.inner_text() == "random"  # empty cells stay last, either way


def saved(tab):
    """Name and rows of the CSV file of the first table."""
    with tab.expect_download() as waiting:
        tab.locator("figure", has=tab.locator("table")).first.get_by_role("button", name="Save as CSV").click()
    return waiting.value.suggested_filename, list(csv.reader(io.StringIO(waiting.value.path().read_text())))


def test_a_table_is_saved_as_csv(tab):
    section = tab.locator("details.section").first
    section.get_by_role("button", name="random").click()
    section.locator("table").first.get_by_role("button", name="method").click()
    name, rows = saved(tab)
    assert name == "methods-beside-each-other.csv"
    width = "test accuracy, %, half width of the 95 % interval"
    assert rows[0] == ["method", "test accuracy, %", width, "note", "missing"]
    assert sorted(rows[1:]) == [[EVIL, "81.2", "", 'a "quoted", one', ""], ["teddy", "70.5", "1.2", "b", ""]]
    section.get_by_role("button", name="All", exact=True).click()
    assert ["random", "9.51", "3", "'" + FORMULA, "3"] in saved(tab)[1]


def test_a_reader_chooses_the_centre(tab):
    figure = tab.locator("figure", has=tab.locator("form"))
    status = figure.locator(".status")
    figure.get_by_label("Centre:").select_option(label=f"{EVIL}: {_why(figure)}")
    assert status.inner_text().startswith(f"Node {EVIL} keeps ")
    figure.get_by_label("or any node:").fill("node 33")
    figure.get_by_role("button", name="Show").click()
    assert "of its 17 edges" in status.inner_text()
    figure.get_by_label("or any node:").fill("nobody")
    figure.get_by_role("button", name="Show").click()
    assert status.inner_text() == "There is no node nobody on this page."
    figure.get_by_label("or any node:").fill("node 11")  # it has one neighbour, node 0
    figure.get_by_role("button", name="Show").click()
    before = status.inner_text()
    figure.locator(".chart").scroll_into_view_if_needed()
    spot = tab.evaluate(
        """() => {
          const box = document.querySelector('figure form').parentElement.querySelector('.chart');
          const frame = box.querySelector('.nsewdrag').getBoundingClientRect(), { xaxis, yaxis } = box._fullLayout;
          for (const trace of box.data) {
            const at = (trace.customdata || []).indexOf(0);
            if (at >= 0) return [frame.x + xaxis.d2p(trace.x[at]), frame.y + yaxis.d2p(trace.y[at])];
          }
        }"""
    )
    tab.mouse.move(*spot)
    tab.mouse.click(*spot)
    until(tab, f"document.querySelector('.status').textContent !== {json.dumps(before)}")
    assert status.inner_text().startswith(f"Node {EVIL} keeps ")


def _why(figure):
    options = figure.locator("option").all_inner_texts()
    return next(option.removeprefix(f"{EVIL}: ") for option in options if option.startswith(EVIL))


def test_light_and_dark_follow_the_system_and_the_switch(tab):
    tab.emulate_media(color_scheme="dark")

    def colours():
        chart = "document.querySelector('.chart').layout.font.color"
        return tab.evaluate(f"[getComputedStyle(document.body).backgroundColor, {chart}]")

    until(tab, "document.querySelector('.chart').layout.font.color === 'rgb(232, 234, 238)'")
    dark = colours()
    button = tab.get_by_role("button", name="Colours: auto")
    button.click()
    light = colours()
    assert (dark[0], light[0]) == ("rgb(20, 23, 28)", "rgb(255, 255, 255)")
    assert dark[1] != light[1]
    tab.emulate_media(color_scheme="light")
    tab.get_by_role("button", name="Colours: light").click()
    assert colours() == dark
    tab.get_by_role("button", name="Colours: dark").click()
    assert colours() == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(tab, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    tab.emulate_media(color_scheme=scheme)
    found = [each for each in axe.run(tab).response["violations"] if each["impact"] in ("serious", "critical")]
    serious = [(each["id"], each["nodes"][0]["html"][:200]) for each in found]
    assert serious == []


def test_a_phone_scrolls_up_and_down_only(opened, tmp_path):
    tab = opened(write_page(tmp_path / "two.html", [run("a" * 80), run(EVIL)]), viewport=PHONE, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    wide = tab.evaluate(
        "[...document.querySelectorAll('.chart .main-svg')].filter((s) => s.getBoundingClientRect().right > 391).length"
    )
    assert wide == 0


def test_it_prints_with_everything_open(tab):
    tab.emulate_media(color_scheme="dark")
    tab.locator("details > summary").last.click()
    assert tab.locator("details:not([open])").count() == 1
    printed = tab.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("Math.max(...[...document.querySelectorAll('.chart')].map((b) => b._fullLayout.width))") <= 700
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details:not([open])").count() == 1
