"""Near matches: what an error offers for a mistyped name."""

import pytest

from dropkey.errors import did_you_mean

NAMES = [
    "vit_tiny_patch16_224",
    "gcvit_tiny",
    "vit_base_patch16_224",
    "resnet50",
    "t2t_vit_14",
    "deit3_small_patch16_224",
]


@pytest.mark.parametrize(
    ("word", "best"),
    [
        ("vit_tinyy", "vit_tiny_patch16_224"),  # the beginning of a long name counts
        ("vit_tny", "vit_tiny_patch16_224"),
        ("resnt50", "resnet50"),
        ("t2t_vit14", "t2t_vit_14"),
        ("deit_small_patch16_224", "deit3_small_patch16_224"),
        ("gcvit_tinny", "gcvit_tiny"),
    ],
)
def test_the_name_that_was_meant_comes_first(word, best):
    assert did_you_mean(word, NAMES).startswith(f"; did you mean '{best}'")


def test_names_far_behind_the_closest_are_left_out():
    assert did_you_mean("hico", ["digit_pairs", "hico_det", "vcoco"]) == "; did you mean 'hico_det'?"


def test_nothing_is_offered_for_a_word_like_none_of_them():
    assert did_you_mean("xyzzy", NAMES) == ""
    assert did_you_mean("vit", []) == ""
