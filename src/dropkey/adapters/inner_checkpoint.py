"""Activation checkpointing that starts inside of a site's forward: its recomputation would run around the site.

The forward is entered with the attention calls routed to the site, but the recomputation calls a part of it from the
backward pass, where nothing is routed: another attention than the one that was differentiated.
"""

import sys
from types import FrameType

from dropkey.adapters.site import Site
from dropkey.errors import SiteError

__all__ = ["refuse_inner_checkpoint"]

_HERE = "dropkey.adapters.class_swap"  # whose forward the walk up the stack ends at


def refuse_inner_checkpoint(site: Site) -> None:
    """Raise a SiteError if the attention call at hand is made by a checkpoint inside of the site's forward."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == _HERE and frame.f_code.co_name == "_routed":
            return
        if "checkpoint" in name.rpartition(".")[2]:
            raise SiteError(
                f"{site.label} checkpoints its own inside ({name}), which recomputes it "
                "without the site: checkpoint the whole module instead, for example its block"
            )
        frame = frame.f_back
