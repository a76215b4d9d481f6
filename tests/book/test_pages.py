"""Every page of the book in a real browser without a network: figures drawn, nothing fetched, no error, both themes,
a screen's, a tablet's and a phone's width.

The book is a tiny one built for the test or, with STRUCTURE_FIRST_HTML=book/_build/html, one that is already built.
"""

import json
import os
import re
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
AXE = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules that ask for them: in the dark all else is the same
THEMES = ('region: <div class="sidebar-primary-item">',)  # what axe finds in the theme: its name beside its menu
LARGEST = 2 * 2**20  # bytes of a page's own HTML
BLOCKING = 2**18  # bytes of all scripts that must have come before a page's first words are painted

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

# Whether each figure has been drawn as wide as its column now is.
SETTLED = """
return [...document.querySelectorAll(".sf-plot")].every((it) => {
  const drawn = it.querySelector(".main-svg, canvas");
  return drawn && Math.abs(drawn.getBoundingClientRect().width - it.clientWidth) < 1;
});
"""
# What does not fit: a page that scrolls sideways, a figure wider than its column, and words of a figure that its edge
# cuts or that lie on other words; a word is as it is turned, less the empty rim of its box.
MISFITS = """
const page = document.scrollingElement;
const [wide, seen] = [page.scrollWidth, page.clientWidth];
const found = wide > seen ? [`the page is ${wide} wide, not ${seen}`] : [];
function placed(word) {
  const { x, y, width, height } = word.getBBox();
  const at = word.getScreenCTM();
  const [left, top] = [x + Math.min(2, width / 4), y + height / 6];
  const [right, bottom] = [2 * x + width - left, 2 * y + height - top];
  const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
  return corners.map(([x, y]) => [at.a * x + at.c * y + at.e, at.b * x + at.d * y + at.f]);
}
// Two rectangles are apart if some side of one has all of the other beyond it.
const apart = (one, other) => one.some(([x, y], i) => {
  const [toX, toY] = one[(i + 1) % 4];
  return other.every(([u, v]) => (toX - x) * (v - y) - (toY - y) * (u - x) <= 0);
});
for (const figure of document.querySelectorAll(".sf-figure")) {
  const name = figure.getAttribute("aria-label").slice(0, 40);
  const svg = figure.querySelector(".main-svg");
  if (!svg) continue;
  const edge = svg.getBoundingClientRect();
  const column = figure.parentElement.getBoundingClientRect();
  if (edge.left < column.left - 1 || edge.right > column.right + 1) found.push(`${name}: wider than its column`);
  const words = [...figure.querySelectorAll(".main-svg text")]
    .filter((it) => it.textContent.trim() && !it.closest(".plot") && getComputedStyle(it).visibility !== "hidden")
    .map((it) => ({ said: it.textContent, quad: placed(it) }));
  const cut = words.filter(({ quad }) =>
    quad.some(([x, y]) => x < edge.left - 1 || x > edge.right + 1 || y < edge.top - 1 || y > edge.bottom + 1));
  found.push(...cut.map(({ said }) => `${name}: "${said}" is cut`));
  words.forEach((one, i) => words.slice(i + 1).forEach((other) => {
    if (!apart(one.quad, other.quad) && !apart(other.quad, one.quad))
      found.push(`${name}: "${one.said}" lies on "${other.said}"`);
  }));
}
return found;
"""


@pytest.fixture(scope="module")
def html(request) -> Path:
    given = os.environ.get("STRUCTURE_FIRST_HTML")
    return Path(given).resolve() if given else request.getfixturevalue("once_built").html


def _open(browser: webdriver.Chrome, page: Path, theme: str, width: int = 1280) -> None:
    """Load the page as a reader does whose system prefers `theme` and no motion: nothing of it is fading in."""
    preferences = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in preferences.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    _widen(browser, width)
    browser.get(page.as_uri())
    browser.execute_script(OPEN)


def _widen(browser: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _settled(browser: webdriver.Chrome) -> None:
    """Wait until all figures are drawn at their width, or for so long that it is a failure to tell."""
    WebDriverWait(browser, DRAWN).until(lambda it: it.execute_script("return document.readyState") == "complete")
    with suppress(TimeoutException):
        WebDriverWait(browser, DRAWN, 0.1).until(lambda it: it.execute_script(SETTLED))


def _figures(browser: webdriver.Chrome) -> list[dict]:
    """The page's figures, as soon as all are drawn."""
    _settled(browser)
    return browser.execute_script(FIGURES)


def _requests(browser: webdriver.Chrome) -> list[str]:
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def _pages(html: Path) -> list[Path]:
    pages = sorted(path for path in html.rglob("*.html") if "_static" not in path.parts)
    assert pages, f"no pages in {html}"
    return pages


def test_no_page_loads_from_another_host(html: Path):
    assert (html / "index.html").is_file(), f"no book in {html}"
    assert remote_resources(html) == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 390)])
def test_pages_draw_fit_and_can_be_read(html: Path, browser: webdriver.Chrome, theme: str, width: int):
    """Each page loaded on a screen, then narrowed to a tablet's width, and on a phone; all asked of it at one loading.

    A figure has a phone's layout only where it is loaded on one. Axe sees both themes on a screen, with the side bars.
    """
    drawn = 0
    browser.set_script_timeout(300)
    for page in _pages(html):
        name = page.relative_to(html)
        _open(browser, page, theme, width)
        figures = _figures(browser)
        assert [f["name"] for f in figures if not f["drawn"]] == [], f"{name}: figures not drawn in the {theme} theme"
        assert all(f["name"] for f in figures), f"{name}: a figure without a text alternative"
        faint = {f["name"]: min(f["contrasts"]) for f in figures if f["contrasts"] and min(f["contrasts"]) < 4.5}
        assert not faint, f"{name}: figures whose text is hard to read in the {theme} theme: {faint}"
        assert browser.execute_script(MISFITS) == [], f"{name} at {width} pixels"
        _widen(browser, 900 if width > 900 else 1400)
        _settled(browser)
        if width > 900:
            assert browser.execute_script(MISFITS) == [], f"{name} at 900 pixels"
            _widen(browser, width)
            _settled(browser)
        told = _violations(browser, AXE if theme == "light" else COLOURS)
        assert not told, f"{name}: {len(told)} violations, such as {told[:5]}"
        errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, f"{name}: {errors}"
        remote = [url for url in _requests(browser) if url.startswith(("http", "ws", "ftp"))]
        assert not remote, f"{name} asked the network for {remote}"
        drawn += len(figures)
    assert drawn, "no page has a figure"


def _violations(browser: webdriver.Chrome, rules: list[str]) -> list[str]:
    """What axe finds wrong that is not the theme's; of the figures' numbers some rows stand for all thousands."""
    assert not browser.execute_script("return document.getAnimations().map((it) => it.effect.target.outerHTML)")
    browser.execute_script("document.querySelectorAll('.sf-numbers tr:nth-child(n + 5)').forEach((it) => it.remove())")
    browser.execute_script(AXE_FILE_PATH.read_text(encoding="utf-8"))
    found_by = f"document.fonts.ready.then(() => axe.run({{runOnly: {rules}}}))"
    found = browser.execute_async_script(f"const done = arguments[0]; {found_by}.then((it) => done(it.violations))")
    told = [
        f"{each['id']}: {node['html'][:150]} {node['failureSummary'][-200:]}"
        for each in found
        for node in each["nodes"]
    ]
    return [each for each in told if not each.startswith(THEMES)]


def test_pages_are_quick_to_come(html: Path):
    """What delays a page's first words: its own size, and the scripts that stop its reading."""
    for page in _pages(html):
        text = page.read_text(encoding="utf-8")
        assert len(text.encode()) <= LARGEST, page.name
        scripts = re.findall(r"<script\b([^>]*)>", text.partition("</head>")[0])
        waited = [re.search(r'src="([^"?]+)', it) for it in scripts if not re.search(r"\b(defer|async)\b", it)]
        size = sum((page.parent / it[1]).stat().st_size for it in waited if it)
        assert size <= BLOCKING, f"{page.name} waits for {size} bytes of scripts"


@pytest.mark.parametrize(
    ("kind", "control", "keys"),
    [
        ("sliders", ".slider-group", []),
        ("updatemenus", ".updatemenu-button", [Keys.ENTER]),
        ("updatemenus", ".updatemenu-header", [Keys.ENTER, Keys.TAB, Keys.TAB, Keys.ENTER]),
    ],
)
def test_sliders_and_menus_are_used_by_key(
    html: Path, browser: webdriver.Chrome, kind: str, control: str, keys: list[str]
):
    """The first that has a choice stands in the order of the tab key, changes the figure, and keeps the focus; a phone
    has lists in place of rows of buttons.
    """
    choices = """
return [...document.querySelectorAll(arguments[0])].filter((it) => {
  const { steps, buttons } = it.closest(".sf-plot")._fullLayout[arguments[1]][0];
  return (steps || buttons).length > 1;
});"""
    for page in (each for each in _pages(html) if f'"{kind}":' in each.read_text(encoding="utf-8")):
        _open(browser, page, "light", 390 if control == ".updatemenu-header" else 1280)
        _settled(browser)
        if found := browser.execute_script(choices, control, kind):
            break
    else:
        pytest.skip(f"no {control} in this book")
    used = found[1] if control == ".updatemenu-button" else found[0]  # the first of a row is chosen
    plot = browser.execute_script("return arguments[0].closest('.sf-plot')", used)
    shown = f"return arguments[0]._fullLayout.{kind}[0].active"
    focused = "return document.activeElement === arguments[0]"
    before = browser.execute_script(shown, plot)
    browser.execute_script("arguments[0].focus()", used)
    webdriver.ActionChains(browser).send_keys(Keys.TAB).perform()
    assert not browser.execute_script(focused, used)
    webdriver.ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    assert browser.execute_script(focused, used), "the tab key does not reach it"
    for key in keys or [Keys.ARROW_LEFT if before else Keys.ARROW_RIGHT]:  # a slider: away from the end where it is
        webdriver.ActionChains(browser).send_keys(key).pause(0.3).perform()
    WebDriverWait(browser, DRAWN, 0.1).until(lambda it: it.execute_script(shown, plot) != before)
    assert browser.execute_script("return document.activeElement.matches(arguments[0])", control)


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
