"""The page as a reader meets it: a headless Chromium is driven by mouse, finger and keys."""

import base64
import io
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from chromium import PROGRAM, Browser
from PIL import Image
from reports import planted

from dropkey.diagnostics.page.page import save

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed: apt-get install chromium")

GRID, PREFIX = (4, 6), 2
NASTY = '<img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def reports():
    return {"plain": planted(), NASTY: planted(seed=1)}


@pytest.fixture(scope="module")
def page(reports, tmp_path_factory):
    return save(tmp_path_factory.mktemp("page") / "attention.html", reports)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def wide(browser, page):
    browser.open(page)
    browser.settle()
    return browser


def facts(browser, panel=0):
    """What stands beside the map."""
    rows = browser.ask(
        f"[...document.querySelectorAll('.panel')[{panel}].querySelectorAll('dt')].map((term) => "
        "[term.textContent, term.nextElementSibling.textContent])"
    )
    return dict(rows)


def place_of(browser, row, column):
    """Where a patch of the first map is on the screen."""
    browser.ask("document.querySelector('.stage canvas').scrollIntoView({block: 'center'})")
    box = browser.ask(
        "(() => { const box = document.querySelector('.stage canvas').getBoundingClientRect();"
        "return [box.left, box.top, box.width, box.height]; })()"
    )
    return box[0] + (column + 0.5) * box[2] / GRID[1], box[1] + (row + 0.5) * box[3] / GRID[0]


def choose(browser, field, value):
    browser.ask(
        f"(() => {{ const field = document.getElementById('{field}'); field.value = '{value}';"
        "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    browser.settle()


def focus(browser):
    browser.ask("document.querySelector('.stage canvas').focus()")


def said(report, site, query, head=None, image=0):
    """What the page must say, from the maps themselves."""
    maps = report.sites[site].maps[image].double().numpy()
    weights = (maps.mean(0) if head is None else maps[head])[query]
    best = int(weights[PREFIX:].argmax())
    return (
        f"patch row {best // GRID[1] + 1}, column {best % GRID[1] + 1}",
        weights[PREFIX:].max(),
        weights[:PREFIX].sum(),
    )


def assert_says(browser, report, site, query, head=None, image=0, panel=0):
    shown = facts(browser, panel)
    place, most, prefix = said(report, site, query, head, image)
    where, _, number = shown["most to"].rpartition(", ")
    assert where == place
    assert float(number.rstrip("%")) == pytest.approx(100 * most, rel=0.06, abs=0.01)
    assert float(shown["prefix tokens"].rstrip("%")) == pytest.approx(100 * prefix, rel=0.06, abs=0.01)


def patch(row, column):
    return PREFIX + row * GRID[1] + column


def test_it_asks_no_network_and_throws_nothing(wide):
    assert wide.problems == []
    assert [url for url in wide.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert wide.ask("window.hacked") is None


def test_the_first_look_is_right_in_both_models(wide, reports):
    assert facts(wide)["from"] == "patch row 3, column 4"
    for panel, report in enumerate(reports.values()):
        assert_says(wide, report, 2, patch(2, 3), panel=panel)
    assert wide.ask("[...document.querySelectorAll('.panel h3')].map((title) => title.textContent)") == list(reports)


def test_the_mouse_looks_and_a_click_stays(wide, reports):
    wide.mouse("mouseMoved", *place_of(wide, 0, 5))
    wide.settle()
    assert facts(wide)["from"] == "patch row 1, column 6"
    assert_says(wide, reports["plain"], 2, patch(0, 5))
    wide.mouse("mouseMoved", 2, 2)
    wide.settle()
    assert facts(wide)["from"] == "patch row 3, column 4"
    x, y = place_of(wide, 1, 1)
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        wide.mouse(kind, x, y)
    wide.mouse("mouseMoved", 2, 2)
    wide.settle()
    assert facts(wide)["from"] == "patch row 2, column 2"


def test_keys_move_patch_block_and_head(wide, reports):
    focus(wide)
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", "PageUp", "]", "]"):
        wide.key(key)
    assert facts(wide)["from"] == "patch row 2, column 2"
    assert_says(wide, reports["plain"], 1, patch(1, 1), head=1)
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "PageDown", "[", "["):
        wide.key(key)
    assert facts(wide)["from"] == "patch row 4, column 1"
    assert_says(wide, reports["plain"], 2, patch(3, 0))
    wide.key("p")
    assert facts(wide)["from"] == "prefix token 1 of 2"
    assert_says(wide, reports["plain"], 2, 0)
    wide.key("p")
    assert facts(wide)["from"] == "prefix token 2 of 2"
    wide.key("ArrowRight")
    assert facts(wide)["from"] == "patch row 1, column 1"


def test_sliders_and_choices(wide, reports):
    choose(wide, "site", 0)
    choose(wide, "head", 2)
    assert_says(wide, reports["plain"], 0, patch(2, 3), head=1)
    assert "head 2 of 2" in wide.ask("document.querySelector('.panel .site').textContent")
    choose(wide, "second", "")
    assert wide.ask("[...document.querySelectorAll('.panel')].filter((panel) => !panel.hidden).length") == 1
    choose(wide, "first", 1)
    assert_says(wide, reports[NASTY], 0, patch(2, 3), head=1)
    wide.ask("document.querySelectorAll('#images input')[1].click()")
    wide.settle()
    assert_says(wide, reports[NASTY], 0, patch(2, 3), head=1, image=1)
    choose(wide, "site", 3)
    assert "rollout" in wide.ask("document.querySelector('.panel .site').textContent")


def test_every_head_of_every_block_is_a_choice(wide, reports):
    assert wide.ask("document.querySelectorAll('#overview button').length") == 2 * (3 * 2 + 1)
    wide.ask("document.querySelector('[aria-label=\"blocks.1.attn, head 2\"]').click()")
    wide.settle()
    assert_says(wide, reports["plain"], 1, patch(2, 3), head=1)
    assert wide.ask("document.querySelector('#overview [aria-current=true]').getAttribute('aria-label')") == (
        "blocks.1.attn, head 2"
    )
    wide.ask("document.querySelector('#overview [aria-current=true]').focus()")
    wide.key("ArrowLeft")
    wide.key("ArrowUp")
    assert_says(wide, reports["plain"], 0, patch(2, 3), head=0)


def test_an_artifact_swallows_a_linear_scale_alone(browser, tmp_path):
    browser.open(planted(artifact=PREFIX + 7).save(tmp_path / "a.html"))
    colors = {}
    for scale in ("linear", "percentile"):
        choose(browser, "scale", scale)
        colors[scale] = browser.ask(
            "(() => { const canvas = document.querySelector('#overview canvas');"
            "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            "const at = Array.from({length: pixels.length / 4}, (_, place) => 4 * place);"
            "return new Set(at.map((start) => pixels.slice(start, start + 3).join())).size; })()"
        )
    assert colors["linear"] <= 3
    assert colors["percentile"] > 0.8 * GRID[0] * GRID[1]


def test_one_model_over_its_epochs(browser, tmp_path):
    reports = {f"epoch {number}": planted(seed=number) for number in range(3)}
    browser.open(save(tmp_path / "a.html", reports, are_epochs=True))
    browser.settle()
    assert_says(browser, reports["epoch 2"], 2, patch(2, 3))
    assert_says(browser, reports["epoch 0"], 2, patch(2, 3), panel=1)
    choose(browser, "epoch", 1)
    assert browser.ask("document.getElementById('epoch-text').textContent") == "epoch 1"
    assert_says(browser, reports["epoch 1"], 2, patch(2, 3))
    assert browser.ask("document.getElementById('lead').textContent").startswith(
        "Planted, epoch 0 to epoch 2; 2 images"
    )
    assert browser.ask("document.querySelectorAll('#notes li').length") == 2  # what all epochs have in common, once


def test_a_phone(browser, page, reports):
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        browser.open(page, 390, 844)
        browser.settle()
        assert browser.ask("document.documentElement.scrollWidth") == 390
        browser.tap(*place_of(browser, 3, 2))
        assert facts(browser)["from"] == "patch row 4, column 3"
        assert_says(browser, reports["plain"], 2, patch(3, 2))
        small = browser.ask(
            "[...document.querySelectorAll('.controls select, .actions button')]"
            ".filter((each) => each.getBoundingClientRect().height < 32).length"
        )
        assert small == 0
    finally:
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


def lightness(browser):
    color = browser.ask("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, color.strip("rgb()").split(",")))


def test_light_and_dark(browser, page):
    browser.open(page, dark=True)
    assert lightness(browser) < 200
    browser.open(page)
    assert lightness(browser) > 700
    for _ in range(2):
        browser.ask("document.getElementById('theme').click()")
    assert lightness(browser) < 200


def test_what_can_be_reached_has_a_name(wide):
    nodes = wide.call("Accessibility.getFullAXTree")["nodes"]
    reachable = [
        node
        for node in nodes
        if not node["ignored"]
        and any(p["name"] == "focusable" and p["value"].get("value") for p in node.get("properties", []))
        and node["role"]["value"] != "RootWebArea"
    ]
    assert len(reachable) > 15
    assert [node["role"] for node in reachable if not node.get("name", {}).get("value")] == []
    assert wide.ask("document.querySelectorAll('h1').length") == 1
    assert wide.ask("document.documentElement.lang") == "en"


def test_a_screen_reader_hears_what_is_looked_at(wide, reports):
    focus(wide)
    wide.key("ArrowLeft")
    time.sleep(0.4)
    place, _, _ = said(reports["plain"], 2, patch(2, 2))
    spoken = wide.ask("document.getElementById('status').textContent")
    assert "from patch row 3, column 3" in spoken
    assert place in spoken
    assert "from patch row 3, column 3" in wide.ask("document.querySelector('.stage canvas').ariaLabel")


def downloaded(browser, button, ending, folder):
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.ask(f"document.getElementById('{button}').click()")
    file, end = folder / f"attention.{ending}", time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < end
        browser.settle()
    return file


def test_png_and_svg(wide, tmp_path):
    image = Image.open(downloaded(wide, "png", "png", tmp_path))
    assert image.size == (24 + 2 * 744, 46 + 480 + 60)
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    root = ET.parse(downloaded(wide, "svg", "svg", tmp_path)).getroot()
    name = "{http://www.w3.org/2000/svg}"
    maps = [group for group in root.iter(f"{name}g") if group.find(f"{name}image") is not None]
    assert [len(group.findall(f"{name}rect")) for group in maps] == [GRID[0] * GRID[1] + 2] * 2
    assert any(text.text == NASTY for text in root.iter(f"{name}text"))


def test_print(wide):
    pdf = base64.b64decode(wide.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")
    wide.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert wide.ask("getComputedStyle(document.querySelector('.controls')).display") == "none"
        assert wide.ask("getComputedStyle(document.querySelector('.panel')).display") == "grid"
    finally:
        wide.call("Emulation.setEmulatedMedia", media="")


def test_measures_and_similarity_are_drawn(wide):
    wide.ask("document.getElementById('depth').scrollIntoView()")
    assert wide.ask("document.querySelectorAll('#depth circle').length") == 2 * 3 * (2 + 1)
    choose(wide, "measure", "distance")
    assert "Not defined" in wide.ask("document.getElementById('depth').textContent")
    assert wide.ask("document.querySelectorAll('#similarity figure').length") == 4
    wide.ask(
        "document.querySelectorAll('#similarity rect.cell')[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    wide.settle()
    assert "blocks.0.attn" in wide.ask("document.querySelector('.panel .site').textContent")


def test_queries_that_are_no_patches(browser, tmp_path):
    report = planted()
    queries = [
        site.__class__(**{**vars(site), "maps": site.maps[:, :, :5], "query_grid": None, "num_query_prefix": 5})
        for site in report.sites
    ]
    report = report.__class__(**{**vars(report), "sites": tuple(queries), "rollout": None, "rollout_site": None})
    browser.open(report.save(tmp_path / "a.html"))
    browser.settle()
    assert facts(browser)["from"] == "token 1 of 5"
    focus(browser)
    browser.key("ArrowRight")
    assert facts(browser)["from"] == "token 2 of 5"
    assert_says(browser, report, 2, 1)
    assert browser.problems == []


@pytest.mark.slow
def test_size_and_speed_of_a_small_vit_and_four_photographs(browser, tmp_path, capsys):
    report = planted(sites=12, heads=6, grid=(16, 16), prefix=1, images=4, size=(224, 224))
    path = report.save(tmp_path / "a.html")
    size, ready = path.stat().st_size / 1e6, min(browser.open(path) for _ in range(3))
    with capsys.disabled():
        print(f"\npage of a ViT-S and four photographs: {size:.1f} MB, can be used after {ready} ms")
    assert size < 10
    assert ready < 1000
    image = Image.open(io.BytesIO(base64.b64decode(browser.call("Page.captureScreenshot")["data"])))
    assert image.size == (1280, 900)
