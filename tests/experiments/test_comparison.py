"""Arms x seeds: every pair once, paired differences, going on, and a page that loads nothing and runs nothing."""

import html.parser
import json
import math
import re

import numpy as np
import pytest

from dropkey.cli import main
from dropkey.experiments import job as module
from dropkey.pages.chart import Line, line_chart
from dropkey.runs.interruption import Interrupted

pytestmark = pytest.mark.usefixtures("few_digits")

EVIL = "dropkey:model=vit_mini_patch2_8:drop-path=0.0"
COMMAND = ["compare", "--epochs", "1", "--warmup-epochs", "0", "--batch-size", "60", "--seeds", "2"]
COMMAND += ["--arms", "none", "dropkey:drop-ratio=0.3", EVIL]


@pytest.fixture(scope="module")
def root(tmp_path_factory, few_digits):
    folder = tmp_path_factory.mktemp("runs") / "<b>comparison"
    assert main([*COMMAND, "--output", str(folder)]) == 0
    return folder


def summaries(root, label):
    return [json.loads((root / label / f"seed-{seed}" / "summary.json").read_text()) for seed in range(2)]


def test_results_are_those_of_the_runs(root):
    none, dropkey, _ = json.loads((root / "results.json").read_text())
    accuracies = np.array([s["final_val_accuracy"] for s in summaries(root, "none")])
    others = np.array([s["final_val_accuracy"] for s in summaries(root, "dropkey-drop-ratio=0.3")])
    assert none["accuracy"] == pytest.approx(accuracies.mean())
    assert none["accuracy_sd"] == pytest.approx(accuracies.std(ddof=1))
    assert none["difference"] is None
    assert dropkey["difference"]["mean"] == pytest.approx((others - accuracies).mean())


def test_arms_have_their_own_options_and_seeds(root):
    assert [s["seed"] for s in summaries(root, "none")] == [0, 1]
    assert summaries(root, "none")[0]["drop_ratios"] == []
    assert summaries(root, "dropkey-drop-ratio=0.3")[0]["drop_ratios"][0] == 0.3


def test_running_again_trains_nothing(root, monkeypatch, capsys):
    monkeypatch.setattr(module, "run_once", None)
    assert main([*COMMAND, "--output", str(root)]) == 0
    assert "6 of 6 runs are finished already" in capsys.readouterr().out


def test_it_goes_on_where_it_stopped(root, tmp_path, monkeypatch, capsys):
    trained, once = [], module.run_once

    def run_once(config, watch):
        if len(trained) == 2:
            raise Interrupted
        trained.append(config)
        return once(config, watch)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_once", run_once)
        assert main([*COMMAND, "--output", str(tmp_path / "c")]) == 130
    assert "resumes where this stopped" in capsys.readouterr().err
    assert main([*COMMAND, "--output", str(tmp_path / "c")]) == 0
    assert "2 of 6 runs are finished already" in capsys.readouterr().out
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (root, tmp_path / "c"))
    assert [row["accuracy"] for row in one] == [row["accuracy"] for row in other]


def test_changed_arm_is_named(root, capsys):
    assert main([*COMMAND, "--epochs", "2", "--output", str(root)]) == 2
    err = capsys.readouterr().err
    assert "epochs 1, not 2" in err
    assert len(err.splitlines()) == 1


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_self_contained(root):
    text = (root / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("figure") == 2 + 1  # of the runs, and of the drop ratios: there are no curves of one epoch
    assert "script" not in page.tags
    assert len(page.links) == 3
    assert all(link.startswith("data:") for link in page.links)
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert "dropkey:drop-ratio=0.3" in page.text
    assert "<b>" not in text
    assert "nan" not in re.sub(r"<style>.*</style>", "", text)


def test_page_gives_ratios_by_site_and_block(root):
    page = (root / "report.html").read_text()
    sites = summaries(root, "dropkey-drop-ratio=0.3")[0]["sites"]
    assert [(site["name"], site["block"]) for site in sites] == [(f"blocks.{block}.attn", block) for block in range(4)]
    for name, block, ratio in [("blocks.0.attn", 0, "0.3"), ("blocks.1.attn", 1, "0.2"), ("blocks.3.attn", 3, "0")]:
        row = f'<th scope="row">dropkey:drop-ratio=0.3</th><td>{name}</td><td>{block}</td><td>{ratio}</td>'
        assert row in page
    assert '<th scope="row">none</th><td>blocks' not in page


def test_names_are_escaped():
    line = Line("<script>alert(1)</script>", 0, [0.1, 0.2], [0.0, 0.1], [0.2, 0.3])
    svg = line_chart([line], "<x>", 1, title='"><script>')
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [0.1, 0.9, 0.3], [1e-9, 2e-9], [math.inf, 1.0], [math.nan]])
def test_any_line_can_be_drawn(values):
    svg = line_chart([Line("a", 0, values, values, values)], "epoch", 1, title="t")
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")


@pytest.mark.parametrize(
    ("arms", "named"),
    [
        (["dropky"], "the arm 'dropky'"),
        (["dropkey:drop-ratio=1.2"], "--drop-ratio must be a number in [0, 1), got 1.2"),
        (["dropkey:ratio=0.3"], "--ratio"),
        (["dropkey:0.3"], "'0.3' where an option=value"),
        (["dropkey:seed=3"], "'seed=3' where an option=value"),
        (["none", "none"], "have the same name"),
    ],
)
def test_bad_arms(arms, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--arms", *arms]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
