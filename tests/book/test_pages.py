"""Every page of the book in a real browser without a network: figures drawn, nothing fetched, no error, both themes.

The book is a tiny one built for the test or, with STRUCTURE_FIRST_HTML=book/_build/html, one that is already built.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from axe_core_python.base import AXE_FILE_PATH
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from structure_first.book.resources import remote_resources

DRAWN = 30  # seconds that a page may take to draw, with a browser on every core
AXE = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

# A figure in a closed dropdown or tab has no size: open them all first.
OPEN = """
for (const it of document.querySelectorAll("details")) it.open = true;
for (const it of document.querySelectorAll(".toggle-hidden")) it.classList.remove("toggle-hidden");
for (const it of document.querySelectorAll(".sd-tab-content")) it.style.display = "block";
"""
# Each figure's text alternative, whether something of it is drawn, and how its text stands out from the page.
FIGURES = """
const rgb = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
function ground(element) {
  for (let it = element; it; it = it.parentElement) {
    const [r, g, b, a = 1] = rgb(getComputedStyle(it).backgroundColor);
    if (a > 0.5) return [r, g, b];
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll(".sf-figure")].map((figure) => {
  const sizes = [...figure.querySelectorAll("svg.main-svg, canvas")].map((it) => it.getBoundingClientRect());
  const words = [...figure.querySelectorAll(".main-svg .xtick text, .gtitle, .legendtext, figcaption")];
  const back = light(ground(figure));
  return {
    name: figure.getAttribute("aria-label"),
    drawn: sizes.some((it) => it.width > 50 && it.height > 50),
    contrasts: words.map((it) => {
      const { color, fill } = getComputedStyle(it);
      const fore = light(rgb(it.tagName === "text" ? fill : color));
      return (Math.max(fore, back) + 0.05) / (Math.min(fore, back) + 0.05);
    }),
  };
});
"""


@pytest.fixture(scope="module")
def html(request) -> Path:
    given = os.environ.get("STRUCTURE_FIRST_HTML")
    return Path(given).resolve() if given else request.getfixturevalue("once_built").html


def _open(browser: webdriver.Chrome, page: Path, theme: str) -> None:
    """Load the page as a reader does whose system prefers `theme` and no motion: nothing of it is fading in."""
    preferences = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in preferences.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    browser.execute_script(OPEN)


def _figures(browser: webdriver.Chrome) -> list[dict]:
    """The page's figures, as soon as all are drawn or after ten seconds as they are."""
    WebDriverWait(browser, DRAWN).until(lambda it: it.execute_script("return document.readyState") == "complete")
    with suppress(TimeoutException):
        WebDriverWait(browser, DRAWN, 0.1).until(lambda it: all(f["drawn"] for f in it.execute_script(FIGURES)))
    return browser.execute_script(FIGURES)


def _requests(browser: webdriver.Chrome) -> list[str]:
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def test_no_page_loads_from_another_host(html: Path):
    assert (html / "index.html").is_file(), f"no book in {html}"
    assert remote_resources(html) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_draw_without_a_network(html: Path, browser: webdriver.Chrome, theme: str):
    pages = sorted(path for path in html.rglob("*.html") if "_static" not in path.parts)
    assert pages, f"no pages in {html}"
    drawn = 0
    for page in pages:
        name = page.relative_to(html)
        _open(browser, page, theme)
        figures = _figures(browser)
        assert [f["name"] for f in figures if not f["drawn"]] == [], f"{name}: figures not drawn in the {theme} theme"
        assert all(f["name"] for f in figures), f"{name}: a figure without a text alternative"
        faint = {f["name"]: min(f["contrasts"]) for f in figures if f["contrasts"] and min(f["contrasts"]) < 4.5}
        assert not faint, f"{name}: figures whose text is hard to read in the {theme} theme: {faint}"
        errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, f"{name}: {errors}"
        remote = [url for url in _requests(browser) if url.startswith(("http", "ws", "ftp"))]
        assert not remote, f"{name} asked the network for {remote}"
        drawn += len(figures)
    assert drawn, "no page has a figure"


@pytest.mark.parametrize(("theme", "rules"), [("light", AXE), ("dark", ["color-contrast"])])
def test_pages_keep_to_the_accessibility_guidelines(
    html: Path, browser: webdriver.Chrome, theme: str, rules: list[str]
):
    """WCAG 2.1, A and AA, by axe; in the dark only what differs there.

    Of the figures' numbers some rows stand for all: there are thousands.
    """
    found_by = f"document.fonts.ready.then(() => axe.run({{runOnly: {rules}}}))"
    run = f"const done = arguments[0]; {found_by}.then((it) => done(it.violations))"
    few = "document.querySelectorAll('.sf-numbers tr:nth-child(n + 5)').forEach((it) => it.remove())"
    browser.set_script_timeout(100)
    for page in sorted(path for path in html.rglob("*.html") if "_static" not in path.parts):
        _open(browser, page, theme)
        _figures(browser)
        assert not browser.execute_script("return document.getAnimations().map((it) => it.effect.target.outerHTML)")
        browser.execute_script(few)
        browser.execute_script(AXE_FILE_PATH.read_text(encoding="utf-8"))
        found = browser.execute_async_script(run)
        told = [
            f"{each['id']}: {node['html'][:150]} {node['failureSummary'][-200:]}"
            for each in found
            for node in each["nodes"]
        ]
        assert not told, f"{page.relative_to(html)}: {len(told)} violations, such as {told[:5]}"


def test_a_figure_is_read_as_numbers_and_used_by_key(html: Path, browser: webdriver.Chrome):
    page = next(path for path in sorted(html.rglob("*.html")) if "sf-figure" in path.read_text())
    _open(browser, page, "light")
    _figures(browser)
    table = (
        "return [...document.querySelectorAll('.sf-figure')].map((it) => it.querySelectorAll('.sf-numbers td').length)"
    )
    WebDriverWait(browser, DRAWN, 0.1).until(lambda it: all(it.execute_script(table)))
    legend = browser.find_elements("css selector", ".sf-figure .legendtoggle")
    if not legend:
        pytest.skip("no legend on this book's first page with a figure")
    assert legend[0].get_attribute("tabindex") == "0"
    shown = "return document.querySelector('.sf-plot')._fullData.map((it) => it.visible)"
    before = browser.execute_script(shown)
    browser.execute_script("arguments[0].focus()", legend[0])
    webdriver.ActionChains(browser).send_keys(Keys.ENTER).perform()
    WebDriverWait(browser, DRAWN, 0.1).until(lambda it: it.execute_script(shown) != before)


def test_a_key_term_shows_its_meaning(html: Path, browser: webdriver.Chrome):
    page = next((path for path in sorted(html.rglob("*.html")) if "sf-term" in path.read_text()), None)
    if page is None:
        pytest.skip("no glossary in this book")
    _open(browser, page, "light")
    term = browser.find_element("css selector", "a.sf-term")
    browser.execute_script("arguments[0].focus()", term)
    tip = browser.find_element("id", term.get_attribute("aria-describedby"))
    assert tip.is_displayed() and tip.text == term.get_attribute("data-meaning")
    assert browser.execute_script("return arguments[0].getBoundingClientRect().right <= innerWidth", tip)
    webdriver.ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", term)
    webdriver.ActionChains(browser).move_to_element(term).perform()
    webdriver.ActionChains(browser).move_to_element(tip).pause(0.5).perform()
    assert tip.is_displayed(), "the pointer may rest on it"
    webdriver.ActionChains(browser).move_by_offset(0, 200).perform()
    WebDriverWait(browser, DRAWN, 0.1).until(lambda _: not tip.is_displayed())


def test_a_figure_follows_the_theme(html: Path, browser: webdriver.Chrome):
    page = next(path for path in sorted(html.rglob("*.html")) if "sf-figure" in path.read_text())
    _open(browser, page, "light")
    assert all(f["drawn"] for f in _figures(browser))
    browser.execute_script('document.documentElement.dataset.theme = "dark"')
    for event, theme in (("beforeprint", "light"), ("afterprint", "dark")):
        browser.execute_script(f"dispatchEvent(new Event('{event}'))")
        assert browser.execute_script("return document.documentElement.dataset.theme") == theme
    readable = "return (() => {" + FIGURES + "})().every((f) => f.contrasts.every((c) => c >= 4.5))"
    WebDriverWait(browser, DRAWN, 0.1).until(lambda it: it.execute_script(readable))


def test_formulas_are_mathml(html: Path, browser: webdriver.Chrome):
    page = next((path for path in sorted(html.rglob("*.html")) if "<math" in path.read_text()), None)
    if page is None:
        pytest.skip("no formula in this book")
    _open(browser, page, "light")
    boxes = browser.execute_script("return [...document.querySelectorAll('math')].map(m => m.getBoundingClientRect())")
    assert all(box["width"] > 0 and box["height"] > 0 for box in boxes)
