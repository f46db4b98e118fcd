"""Rows, tables and sentences of a comparison, from results made up so that the right answer is known."""

import csv
import io
import json
import math
import re

import pytest
from made_results import results_of

from dropkey.experiments.comparison_files import write_comparison
from dropkey.experiments.comparison_page import comparison_page
from dropkey.experiments.comparison_table import arm_rows, as_cells, as_data, as_text
from dropkey.experiments.comparison_words import how_tested, verdict
from dropkey.experiments.table_files import as_csv, as_latex

CLEAR = {
    "none": {0: 0.80, 1: 0.82, 2: 0.81, 3: 0.83},
    "better": {0: 0.90, 1: 0.921, 2: 0.912, 3: 0.929},
    "worse": {0: 0.70, 1: 0.73, 2: 0.70, 3: 0.74},
    "same": {0: 0.81, 1: 0.81, 2: 0.82, 3: 0.82},
}


def said(finals, task="classification"):
    results, measures = results_of(finals, task)
    return verdict(arm_rows(results, measures), measures[0]).splitlines()


def test_rows_pair_by_seed_whatever_the_order():
    shuffled = {"none": {2: 0.5, 0: 0.1, 1: 0.3}, "arm": {0: 0.2, 1: 0.5, 2: 0.8, 7: 0.9}}
    results, measures = results_of(shuffled)
    none, arm = arm_rows(results, measures)
    assert none.difference is None
    assert arm.differences == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    assert (arm.seeds, arm.difference.pairs) == (4, 3)
    assert arm.difference.mean == pytest.approx(0.2)
    assert arm.means["accuracy"] == pytest.approx(0.6)


def test_p_values_are_corrected_over_the_arms():
    results, measures = results_of(CLEAR)
    _, better, worse, same = arm_rows(results, measures)
    raw = sorted(row.difference.p_value for row in (better, worse, same))
    assert sorted([better.p_holm, worse.p_holm]) == pytest.approx([3 * raw[0], 2 * raw[1]])
    assert same.p_holm == pytest.approx(raw[2])


def test_the_verdict_says_which_arm_is_better():
    better, worse, same = said(CLEAR)
    assert re.fullmatch(r"better is better than none: accuracy \+0\.1005 \[.*\], p < 0\.001\.", better)
    assert worse.startswith("worse is worse than none: accuracy -0.0975")
    assert same == "same does not differ measurably from none."


def test_where_lower_is_better_the_verdict_turns():
    in_mm = {label: {seed: 100 * value for seed, value in values.items()} for label, values in CLEAR.items()}
    better, worse, same = said(in_mm, "mesh")
    assert better.startswith("better is worse than none: MPJPE +10.1 mm [")
    assert worse.startswith("worse is better than none: MPJPE -9.8 mm [")
    assert same == "same does not differ measurably from none."


def test_no_arm_differs_in_plain_words():
    assert said({name: CLEAR[name] for name in ("none", "same")}) == ["No arm differs measurably from none."]


def test_an_interval_that_leaves_out_zero_is_not_enough_among_many_arms():
    """One arm of p = 0.03 is told from none; the same arm among five is not."""
    near = {0: 0.84, 1: 0.842, 2: 0.83, 3: 0.87}
    alone = said({"none": CLEAR["none"], "near": near})
    assert alone[0].startswith("near is better")
    others = {
        f"same {number}": {s: v + 0.001 * number * (-1) ** s for s, v in CLEAR["none"].items()}
        for number in range(1, 5)
    }
    results, measures = results_of({"none": CLEAR["none"], "near": near, **others})
    rows = arm_rows(results, measures)
    assert rows[1].difference.low > 0
    assert verdict(rows, measures[0]) == "No arm differs measurably from none."
    assert "Holm" in " ".join(how_tested(rows))


def test_what_cannot_be_tested_is_said():
    assert said({"none": {0: 0.5}, "arm": {0: 0.6}, "other": {0: 0.4}}) == [
        "arm and other shared one seed with none: nothing can be told apart from chance with fewer than two."
    ]
    assert said({"none": {0: 0.5, 1: 0.5}, "arm": {0: 0.6, 1: 0.6}}) == [
        "arm differs from none by +0.1000 with every seed: without a spread there is no test."
    ]
    assert said({"none": {0: 0.5, 1: 0.5}, "arm": {2: 0.6, 3: 0.6}}) == [
        "arm shared no seed with none and cannot be compared with it."
    ]
    assert said({"none": {0: 0.5, 1: 0.6}}) == ["There is one arm, and nothing to compare it with."]


def test_what_was_not_measured_is_a_dash_and_null():
    results, measures = results_of({"none": {0: 0.5, 1: 0.6}, "arm": {0: 0.6, 1: 0.8}})
    for result in results[:2]:
        result.summary["final_val_loss"] = None
    rows = arm_rows(results, measures)
    header, none, arm = as_cells(rows, measures)
    assert none[header.index("val loss")] == "-"
    assert arm[header.index("val loss")] != "-"
    assert as_data(rows, measures)[0]["loss"] is None
    json.dumps(as_data(rows, measures), allow_nan=False)


def test_csv_holds_every_digit():
    results, measures = results_of(CLEAR)
    rows = arm_rows(results, measures)
    read = list(csv.DictReader(io.StringIO(as_csv(rows, measures))))
    assert [line["label"] for line in read] == list(CLEAR)
    for line, row, values in zip(read, rows, CLEAR.values(), strict=True):
        assert float(line["accuracy"]) == row.means["accuracy"]
        assert [float(line[f"seed_{seed}"]) for seed in values] == list(values.values())
        if row.difference:
            assert float(line["difference_low"]) == row.difference.low
            assert float(line["difference_p_holm"]) == row.p_holm
    assert read[0]["difference_mean"] == ""


def test_latex_has_a_column_per_column_and_escapes_names():
    evil = "50%_of & {all} ~#1 \\x ^$"
    results, measures = results_of({"none": {0: 0.5, 1: 0.6}, evil: {0: 0.6, 1: 0.8}})
    rows = arm_rows(results, measures)
    lines = as_latex(rows, measures).splitlines()
    assert [line for line in lines if "rule" in line] == ["\\toprule", "\\midrule", "\\bottomrule"]
    columns = re.fullmatch(r"\\begin\{tabular\}\{(l)(r+)\}", lines[1])
    body = [line for line in lines if line.endswith("\\\\")]
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == len(columns[2])
    assert body[2].startswith(
        "50\\%\\_of \\& \\{all\\} \\textasciitilde{}\\#1 \\textbackslash{}x \\textasciicircum{}\\$ & 2 & 0.7000 $\\pm$ "
    )
    assert "$+$0.1500 [$-$" in body[2]


def test_the_page_says_what_one_image_is_worth_where_it_is_worth_a_fixed_share():
    page = comparison_page(*results_of(CLEAR, val_images=250))
    assert "900 for training, 250 for validation; one validation image is worth 0.004 accuracy" in page
    other = comparison_page(*results_of(CLEAR, "mesh"))
    assert "900 for training, 100 for validation" in other
    assert "is worth" not in other


def test_results_of_earlier_versions_have_a_page():
    results, measures = results_of(CLEAR)
    for result in results:
        for name in ("machine", "num_train", "num_val"):
            del result.summary[name]
    page = comparison_page(results, measures)
    assert "is worth" not in page
    assert "1,234,567" in page


def test_the_terminal_table_has_what_the_page_has():
    results, measures = results_of(CLEAR)
    rows = arm_rows(results, measures)
    page, printed = comparison_page(results, measures), as_text(rows, measures)
    for cell in as_cells(rows, measures)[1]:
        assert cell in page
        assert cell in printed


def test_title_lead_command_and_sections_are_shown_and_escaped(tmp_path):
    results, measures = results_of({"none": {0: 0.5, 1: 0.6}, "<b>arm</b>": {0: 0.6, 1: 0.8}})
    words = {"title": "<i>title</i>", "lead": "a < b", "command": "dropkey compare '<u>'"}
    path = write_comparison(tmp_path, results, measures, **words, sections=[("<s>more</s>", "<em>mine</em>")])
    page = path.read_text()
    for tag in ("<b>", "<i>", "<u>", "<s>"):
        assert tag not in page
    assert "a &lt; b" in page
    assert "<em>mine</em>" in page
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "figure.svg",
        "report.html",
        "results.json",
        "table.csv",
        "table.tex",
    ]


def test_seconds_are_means():
    results, measures = results_of(CLEAR)
    assert arm_rows(results, measures)[0].seconds == 12.5
    assert math.isnan(arm_rows(results, measures)[0].p_holm)
