"""Heads of QPIC: what each query says of a pair."""

from torch import Tensor, nn

__all__ = ["inverse_sigmoid", "refining_box_head", "verb_head"]

_VERB_BIAS = -3.0  # few of all verbs hold: at first each is as likely as 0.05


def _box_head(width: int) -> nn.Sequential:
    """Return three layers from hidden states (..., width) to a box (..., 4), before the sigmoid."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))


def verb_head(width: int, num_verbs: int) -> nn.Linear:
    """Return a layer from hidden states to the logits of verbs."""
    head = nn.Linear(width, num_verbs)
    nn.init.constant_(head.bias, _VERB_BIAS)
    return head


def refining_box_head(width: int) -> nn.Sequential:
    """Return a box head that says 0 at first: a change of another box."""
    head = _box_head(width)
    last = head[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head


def inverse_sigmoid(share: Tensor) -> Tensor:
    """Return the logit of a number in [0, 1]."""
    return share.clamp(1e-5, 1 - 1e-5).logit()
