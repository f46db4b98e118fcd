"""The page of examples that a comparison writes: every arm beside the truth, on a desk and on a phone."""

import re

import numpy as np
import pytest
from chromium import PROGRAM, Browser

from dropkey.data import digit_pairs as drawn
from dropkey.tasks.interaction import page as module
from dropkey.tasks.interaction.interactions import Interactions
from dropkey.tasks.interaction.task import TASK

NASTY = '<img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two networks that know nothing, so that every pair is drawn, however unsure they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "_SCENES", {"train": 4, "val": 3})
        patch.setattr(module, "_SURE", 0.0)
        given = {"none": {"regularizer": "none"}, NASTY: {"regularizer": "dropkey"}}
        trained = {label: TASK.prepare(TASK.resolve({**each, "output": "nowhere"})) for label, each in given.items()}
        path = tmp_path_factory.mktemp("page") / "examples.html"
        path.write_text(TASK.examples(trained))
        return path


def test_each_arm_is_beside_the_truth(page):
    text = page.read_text()
    titles = re.findall("<h3>(.*?)</h3>", text)
    shown = len(re.findall("<h2>", text))
    assert 1 <= shown <= 3
    assert titles.count("truth") == titles.count("none") == shown
    assert "<img src=x" not in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []


def test_a_pair_is_said_once_with_the_surest_class_of_its_object():
    source = drawn.digit_pairs()
    queries = np.array([[1, 2], [1, 2], [3, 2], [1, 2]])
    boxes = np.tile([10.0, 10.0, 30.0, 40.0], (4, 1))
    objects, verbs, scores = np.array([8, 3, 3, 8]), np.array([0, 0, 1, 4]), np.array([0.9, 0.6, 0.5, 0.4])
    best = Interactions(np.zeros(4, int), boxes, boxes + 30, objects, verbs, scores, queries)
    said = [words for _, words in module._grouped(best, source)]
    assert said == ["0 → 8: above 0.90, touches 0.40", "0 → 3: below 0.50"]


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed: apt-get install chromium")
def test_it_fits_the_screen_and_names_stay_small(page, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        for width in (1280, 390):
            browser.open_plain(page, width)
            assert browser.problems == []
            assert browser.ask("document.documentElement.scrollWidth") == width
            assert browser.ask("window.hacked") is None
            heights = "[...document.querySelectorAll('.picture svg text')].map((n) => n.getBoundingClientRect().height)"
            pictures = "[...document.querySelectorAll('.picture svg')].map((n) => n.getBoundingClientRect().height)"
            tallest, pictures = max(browser.ask(heights)), browser.ask(pictures)
            assert min(pictures) > 150
            assert tallest < 0.1 * min(pictures)
    finally:
        browser.close()
