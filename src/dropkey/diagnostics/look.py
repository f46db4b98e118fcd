"""Image after image, what a report is made of."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from dropkey.adapters.names import shown
from dropkey.diagnostics.heard import Heard
from dropkey.diagnostics.likeness import FeatureLikeness, MapLikeness
from dropkey.diagnostics.measures.rollout import rolled
from dropkey.diagnostics.report import Report
from dropkey.diagnostics.seen_site import SeenSite
from dropkey.diagnostics.windows import WindowPlaces
from dropkey.errors import SiteError

__all__ = ["Look"]

Grid = tuple[int, int]


class Look:
    """Takes what one image after the other has shown, and makes a report.

    Args:
        names: of the model's modules.
        image: (height, width) in pixels.
        max_patches: that a kept map may have.
        places: where windows lie, by the name of their module.
    """

    def __init__(
        self, names: Mapping[nn.Module, str], image: Grid, max_patches: int, places: Mapping[str, WindowPlaces]
    ) -> None:
        self.names = names
        self.image = image
        self.max_patches = max_patches
        self.places = places
        self.sites: list[SeenSite] = []
        self.rolled_places: list[int] = []
        self.blocks: tuple[str, ...] = ()
        self.likeness, self.feature_likeness = MapLikeness(), FeatureLikeness()
        self.rollouts: list[Tensor] = []

    def at(self, calls: Sequence[Heard], grids: Mapping[nn.Module, Grid], features: Mapping[str, Tensor]) -> None:
        """Take the attention calls and the block outputs of one image."""
        if not self.sites:
            self._begin(calls, grids, features)
        seen, now = [(s.num_maps, s.num_heads, *s.shape) for s in self.sites], [heard.shape for heard in calls]
        if seen != now:
            raise SiteError("this model attends in other shapes from image to image: diagnose one image at a time")
        rolling: Tensor | None = None
        for place, (site, heard) in enumerate(zip(self.sites, calls, strict=True)):
            attn = heard.maps()
            site.see(heard, attn)
            if place in self.rolled_places:
                rolling = rolled(rolling, attn)
        if rolling is not None:
            self.rollouts.append(self.sites[self.rolled_places[0]].pooled(rolling[:, None])[:, 0].float().cpu())
        self.likeness.add(calls)
        self.feature_likeness.add([features[block] for block in self.blocks])

    def _begin(self, calls: Sequence[Heard], grids: Mapping[nn.Module, Grid], features: Mapping[str, Tensor]) -> None:
        named = _numbered(self.names[heard.found.module] for heard in calls)
        for name, heard in zip(named, calls, strict=True):
            places = self.places.get(self.names[heard.found.module])
            self.sites.append(SeenSite(name, heard, grids, self.image, self.max_patches, places))
        rolled_places = [place for place, site in enumerate(self.sites) if site.is_rolled]
        if len({self.sites[place].shape for place in rolled_places}) == 1:
            self.rolled_places = rolled_places
        self.blocks = tuple(features)

    def report(self, model: str, images: Tensor, notes: Sequence[str]) -> Report:
        """Return the report of all images."""
        return Report(
            model=model,
            images=images,
            sites=tuple(site.report() for site in self.sites),
            similarity=self.likeness.mean(),
            similar_blocks=self.likeness.similar(),
            blocks=self.blocks,
            feature_similarity=self.feature_likeness.mean(),
            rollout=torch.cat(self.rollouts) if self.rollouts else None,
            rollout_site=self.rolled_places[0] if self.rollouts else None,
            notes=(*self._notes(), *notes),
        )

    def _notes(self) -> Iterator[str]:
        pooled = [site for site in self.sites if site.is_pooled]
        if pooled:
            cells = ", ".join(sorted({f"{s.key_cell} x {s.key_cell}" for s in pooled}))
            ranked = "" if all(site.places for site in pooled) else "; their effective rank is that of the pooled maps"
            yield f"maps of {len(pooled)} of {len(self.sites)} sites are pooled to cells of {cells} patches{ranked}"
        lost = [site.name for site in self.sites if not site.is_on_image]
        if lost:
            yield (
                f"maps of {len(lost)} of {len(self.sites)} sites are means over their windows, since it was not found "
                f"where these lie on the image: {', '.join(lost)}"
            )
        if not self.rolled_places:
            yield "no rollout: its sites of self-attention do not all see the same tokens"


def _numbered(names: Iterator[str]) -> list[str]:
    """Return names with the number of the call where a module attends several times in a pass."""
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        counts[name] += 1
        result.append(shown(name) if counts[name] == 1 else f"{shown(name)}#{counts[name]}")
    return result
