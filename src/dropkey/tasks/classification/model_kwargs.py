"""``--model-kwargs``: extra arguments for the constructor of a timm model."""

import argparse
import re
from typing import Any

from timm.utils.misc import ParseKwargs

from dropkey.errors import ArgumentError

__all__ = ["parse_model_kwargs"]

_SAID_ELSEWHERE = {
    "num_classes": "known from the data",
    "img_size": "an option of its own: --img-size",
    "drop_path_rate": "an option of its own: --drop-path",
    "patch_drop_rate": "an option of its own: --patch-drop",
    "drop_rate": "an option of its own: --head-drop",
    "pretrained": "an option of its own: --pretrained",
    # By these timm reads files and addresses.
    "checkpoint_path": "not for files: --weights FILE reads them without running code from them",
    "pretrained_cfg": "not for other sources of weights: --pretrained, or --weights FILE",
    "pretrained_cfg_overlay": "not for other sources of weights: --pretrained, or --weights FILE",
    "cache_dir": "not for other places: the environment variable HF_HOME sets where downloads go",
}
_COMMA = re.compile(r",\s*(?=\w+\s*=)")  # between two arguments, not inside of a tuple
_WORDS = {"true": True, "false": False}  # as in YAML


def parse_model_kwargs(text: str) -> dict[str, Any]:
    """Read ``depth=24,embed_dim=96`` as timm reads its own ``--model-kwargs``: values are Python's, else words.

    Raises:
        ArgumentError: no ``name=value``, or an argument that is an option of its own.
    """
    words = [word.strip() for word in _COMMA.split(text)] if text else []
    for word in words:
        name, sign, value = (part.strip() for part in word.partition("="))
        if not sign or not name.isidentifier() or not value:
            raise ArgumentError(f"--model-kwargs takes name=value, got {word!r}")
        if name in _SAID_ELSEWHERE:
            raise ArgumentError(f"--model-kwargs has {name}, which is {_SAID_ELSEWHERE[name]}")
    said = argparse.Namespace()
    timm_action: Any = ParseKwargs(["--model-kwargs"], "kwargs")
    timm_action(None, said, [re.sub(r"\s*=\s*", "=", word, count=1) for word in words])
    values: dict[str, Any] = said.kwargs
    return {name: _WORDS.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
