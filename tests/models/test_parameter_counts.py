"""The backbones have as many parameters as the authors' models, counted in their code, and as the papers print."""

import pytest
import timm

import dropkey.models  # noqa: F401  registers the names

# All parameters at 1000 classes, the ones that are never trained included: counted in the authors' released code.
# The plain ViTs are DeepViT without its 12 x 12 matrix, its bias and its batch norm in every block.
COUNTS = {
    "t2t_vit_7": (4_310_222, 4.3),
    "t2t_vit_10": (5_889_230, 5.9),
    "t2t_vit_12": (6_941_902, 6.9),
    "t2t_vit_14": (21_545_550, 21.5),
    "t2t_vit_19": (39_177_422, 39.2),
    "t2t_vit_24": (64_105_934, 64.1),
    "t2t_vit_t_14": (21_541_070, 21.5),
    "t2t_vit_t_19": (39_172_942, 39.2),
    "t2t_vit_t_24": (64_101_454, 64.1),
    "t2t_vit_14_resnext": (21_545_550, None),
    "t2t_vit_14_wide": (25_156_302, None),
    "ceit_tiny": (6_356_904, 6.4),
    "ceit_small": (24_204_840, 24.2),
    "ceit_base": (94_405_416, 94.4),
    "deepvit_s": (27_312_632, 27.3),
    "deepvit_l": (58_883_708, 58.9),
    "deepvit_16b": (24_426_664, 24.4),
    "deepvit_24b": (36_261_448, 36.3),
    "deepvit_32b": (48_096_232, 48.1),
    "vit_16b": (24_426_664 - 16 * (12 * 12 + 12 + 24), 24.4),
    "vit_24b": (36_261_448 - 24 * (12 * 12 + 12 + 24), 36.3),
    "vit_32b": (48_096_232 - 32 * (12 * 12 + 12 + 24), 48.1),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    exact, printed = COUNTS[name]
    count = sum(parameter.numel() for parameter in timm.create_model(name, device="meta").parameters())
    assert count == exact
    assert printed is None or round(count / 1e6, 1) == printed
