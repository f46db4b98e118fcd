"""The page of a comparison as its readers meet it: on a desk, on a phone, in the dark, on paper, without seeing it."""

import itertools

import pytest
from chromium import PROGRAM, Browser
from made_results import made_results

from dropkey.experiments.comparison_files import write_comparison

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed: apt-get install chromium")

NASTY = '<img src=x onerror="window.hacked=1">'
LONG = "dropkey:drop-ratio=0.3:pattern=block:window-size=3:schedule=constant"
EFFECTS = {
    "none": 0.0,
    "dropout:drop-ratio=0.3": 0.02,
    **{f"dropkey:drop-ratio=0.{ratio}": 0.002 * ratio for ratio in range(1, 8)},
    "dropkey:drop-ratio=0.9": -0.3,
    LONG: 0.004,
    NASTY: 0.0,
}
WIDTHS = [1280, 390]

# Text of the page, and what is behind it: the nearest ancestor that is not transparent.
CONTRASTS = """
(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).slice(0, 3).map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let up = node; up; up = up.parentElement) {
      const color = getComputedStyle(up).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const texts = [...document.body.querySelectorAll("*")].filter((node) => hasText(node) && node.checkVisibility());
  const drawn = [...document.querySelectorAll(".line, .span, .dot, .leader")];
  const inks = texts.map((node) => [node.matches("text") ? "fill" : "color", node, 4.5])
    .concat(drawn.map((node) => ["stroke", node, 3]));
  return inks.map(([property, node, least]) => {
    const color = getComputedStyle(node)[property];
    return [ratio(color, behind(node)), least, node.tagName + "." + (node.getAttribute("class") ?? "") + " " + color];
  });
})()
"""

# Where the words of each drawing are, in pixels of the screen, and where the drawing is.
PLACES = """
[...document.querySelectorAll("figure svg[role=img]")].map((svg) => {
  const box = (node) => (({left, top, right, bottom}) => [left, top, right, bottom])(node.getBoundingClientRect());
  return [box(svg), [...svg.querySelectorAll("text")].map((node) => [node.textContent, box(node)])];
})
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    results, measures = made_results(EFFECTS)
    return write_comparison(tmp_path_factory.mktemp("page"), results, measures, command="dropkey compare --arms none")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_asks_no_network_and_runs_nothing(browser, page, width):
    browser.requests.clear()
    browser.open_plain(page, width)
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.ask("window.hacked") is None
    assert browser.ask("document.scripts.length") == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(browser, page, width):
    browser.open_plain(page, width)
    assert browser.ask("document.documentElement.scrollWidth") == width
    wide = browser.ask(
        "[...document.querySelectorAll('main *')].filter((node) => !node.parentElement.closest('.scroll, pre, svg') &&"
        " node.getBoundingClientRect().right > innerWidth + 0.5).map((node) => node.outerHTML.slice(0, 80))"
    )
    assert wide == []


@pytest.mark.parametrize("width", WIDTHS)
def test_words_of_a_drawing_stay_inside_and_apart(browser, page, width):
    browser.open_plain(page, width)
    drawings = browser.ask(PLACES)
    assert len(drawings) == 2 + 11 + 5
    for (left, top, right, bottom), words in drawings:
        assert right - left > 200
        for name, (x0, y0, x1, y1) in words:
            assert left - 0.5 <= x0, name
            assert x1 <= right + 0.5, name
            assert top - 0.5 <= y0, name
            assert y1 <= bottom + 0.5, name
        for (one, a), (other, b) in itertools.combinations(words, 2):
            across = min(a[2], b[2]) - max(a[0], b[0])
            down = min(a[3], b[3]) - max(a[1], b[1])
            assert across <= 0 or down <= 0.3 * (a[3] - a[1]), f"{one!r} over {other!r}"


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_read_in_light_and_dark(browser, page, dark):
    browser.open_plain(page, dark=dark)
    red, *_ = browser.ask("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 60) == dark
    measured = browser.ask(CONTRASTS)
    assert len(measured) > 300
    faint = [(round(ratio, 2), what) for ratio, least, what in measured if ratio < least]
    assert faint == []


def test_the_first_drawing_shows_every_run(browser, page):
    browser.open_plain(page)
    dots = "[...document.querySelectorAll('figure')].slice(0, 2).map((one) => one.querySelectorAll('.dot').length)"
    assert browser.ask(dots) == [4 * len(EFFECTS), 4 * (len(EFFECTS) - 1)]


def test_the_downloads_are_the_files_beside_the_page(browser, page):
    browser.open_plain(page)
    names = browser.ask("[...document.querySelectorAll('a[download]')].map((link) => link.download)")
    assert names == ["table.csv", "table.tex", "figure.svg"]
    for place, name in enumerate(names):
        decoded = (
            f"new TextDecoder().decode(Uint8Array.from(atob(document.querySelectorAll('a[download]')[{place}]"
            ".href.split(',')[1]), (letter) => letter.charCodeAt()))"
        )
        assert browser.ask(decoded) == (page.parent / name).read_text()


def test_the_figure_stands_alone(browser, page):
    """In colors of its own, without the page's style, and with nothing cut off."""
    browser.open_plain(page.parent / "figure.svg", 900, 900)
    assert browser.ask("document.documentElement.tagName") == "svg"
    colors = browser.ask("[...document.querySelectorAll('.dot')].map((dot) => getComputedStyle(dot).stroke)")
    assert len(colors) == 4 * (2 * len(EFFECTS) - 1)
    assert len(set(colors)) == 8
    right = "Math.max(...[...document.querySelectorAll('text')].map((node) => node.getBoundingClientRect().right))"
    assert browser.ask(right) <= 840


def test_who_does_not_see_it_hears_the_numbers(browser, page):
    browser.open_plain(page)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    heard = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    pictures = [name for role, name in heard if role in ("image", "img")]
    assert len(pictures) == 2 + 11 + 5
    assert all(pictures)
    assert "dropout:drop-ratio=0.3: +0.0" in pictures[1]
    assert ("region", "Arms over their seeds") in heard
    assert ("rowheader", LONG) in heard
    levels = browser.ask("[...document.querySelectorAll('h1, h2, h3')].map((title) => Number(title.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_keys_reach_all_that_can_be_used(browser, page):
    browser.open_plain(page, 390)
    reached = []
    for _ in range(9):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(browser.ask("document.activeElement.download || document.activeElement.tagName"))
    assert reached[:4] == ["table.csv", "table.tex", "figure.svg", "DIV"]
    assert "SUMMARY" in reached


def test_on_paper_it_is_light_and_whole(browser, page):
    browser.open_plain(page, 718, dark=True)
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    browser.settle()
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('h1')).color") == "rgb(28, 36, 48)"
    assert browser.ask("document.documentElement.scrollWidth") <= 718
    assert browser.ask("document.querySelector('a[download]').checkVisibility()") is False
    assert browser.ask("document.querySelector('pre').getBoundingClientRect().height") > 50
    table = "document.querySelector('table').getBoundingClientRect()"
    assert browser.ask(f"{table}.right") <= 718
    browser.call("Emulation.setEmulatedMedia", media="")
