"""A detector and scenes so small that a run takes seconds."""

import pytest

from dropkey.data import detection_sources
from dropkey.data.boxed_images import DetectionSource
from dropkey.data.digit_scenes import DigitScenes


@pytest.fixture(scope="module")
def few_scenes():
    """Let ``--data digit_scenes`` mean 24 training and 8 validation scenes."""
    train, val = DigitScenes("train", 24), DigitScenes("val", 8)
    few = DetectionSource("digit_scenes", train, val, [str(digit) for digit in range(10)], range(10), flips=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(detection_sources.DETECTION_SOURCES, "digit_scenes", lambda data_dir, mend: few)
        yield few


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with the configuration of a D-FINE that is smaller than the smallest preset, with denoising."""
    from tasks.detection.detectors import CONFIGS

    root = tmp_path_factory.mktemp("models") / "tiny"
    CONFIGS["d_fine"]().save_pretrained(root)
    return root
