"""How alike the sites and the blocks of a model are, pair by pair, summed up image after image."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from dropkey.diagnostics.heard import Heard
from dropkey.diagnostics.measures.similarity import feature_similarity, similarity_of_columns, unit_columns

__all__ = ["FeatureLikeness", "MapLikeness"]

THRESHOLDS = (0.5, 0.7, 0.9)  # DeepViT gives none
_SHARE = 0.9  # of columns that are alike in similar blocks


class MapLikeness:
    """Cross-layer similarity of all pairs of sites, a head at a time: these maps fit into any memory."""

    def __init__(self) -> None:
        self.similarity = torch.zeros(0)
        self.alike: dict[float, Tensor] = {}  # share of columns of each site that are as those of the site before
        self.num_images = 0

    def add(self, calls: Sequence[Heard]) -> None:
        """Take the calls of one image."""
        size = len(calls)
        similarity = torch.full((size, size), torch.nan)
        alike = {threshold: torch.full((size,), torch.nan) for threshold in THRESHOLDS}
        for group in _groups([_comparable(heard) for heard in calls]):
            pairs, cosines = [], []
            for head in range(calls[group[0]].shape[1]):
                columns = unit_columns([calls[place].maps(heads=[head])[0, 0] for place in group])
                pairs.append(similarity_of_columns(columns))
                cosines.append((columns[1:] * columns[:-1]).sum(-2))  # with the block before
            places = torch.tensor(group)
            similarity[places[:, None], places] = torch.stack(pairs).mean(0).float().cpu()
            for threshold, shares in alike.items():
                shares[places[1:]] = (torch.stack(cosines) > threshold).float().mean((0, 2)).cpu()
        self.similarity = similarity if not self.num_images else self.similarity + similarity
        self.alike = {t: shares + self.alike.get(t, torch.zeros(size)) for t, shares in alike.items()}
        self.num_images += 1

    def mean(self) -> Tensor:
        """Return the similarity of every pair, float32 (S, S); NaN for pairs that cannot be compared."""
        return self.similarity / self.num_images

    def similar(self) -> dict[float, int]:
        """Return how many sites attend as the comparable site before does, by threshold."""
        return {t: int((shares / self.num_images > _SHARE).sum()) for t, shares in self.alike.items()}


class FeatureLikeness:
    """Similarity of the outputs of all pairs of blocks."""

    def __init__(self) -> None:
        self.similarity = torch.zeros(0)
        self.num_images = 0

    def add(self, features: Sequence[Tensor]) -> None:
        """Take the blocks' outputs of one image."""
        similarity = torch.full((len(features),) * 2, torch.nan)
        for group in _groups([tuple(feature.shape) for feature in features]):
            of_group = feature_similarity([features[place].float() for place in group]).cpu()
            similarity[torch.tensor(group)[:, None], torch.tensor(group)] = of_group
        self.similarity = similarity if not self.num_images else self.similarity + similarity
        self.num_images += 1

    def mean(self) -> Tensor:
        """Return the similarity of every pair, float32; NaN for outputs of different shapes."""
        return self.similarity / max(1, self.num_images)


def _comparable(heard: Heard) -> Hashable:
    """What maps that can be compared have in common; None for maps of windows, which lie elsewhere in every block."""
    return heard.shape if heard.shape[0] == 1 and heard.found.kind != "window" else None


def _groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Return the places of equal keys together, but for None."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(place)
    return list(groups.values())
