"""Whether the blocks of a trained classifier attend alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dropkey.diagnostics.diagnose import diagnose
from dropkey.errors import SiteError
from dropkey.experiments.readings.spread import spread_images
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import RunFolder

__all__ = ["SimilarBlocks"]


@dataclass(frozen=True)
class SimilarBlocks:
    """How alike the maps of neighboring blocks are, and how many blocks attend as the one before: DeepViT's collapse.

    NaN for models whose blocks cannot be compared, convolutional ones for instance.
    """

    threshold: float = 0.5
    images: int = 64

    @property
    def name(self) -> str:
        return f"similar-blocks-{self.threshold:g}-{self.images}-images"

    measures = (
        Measure("similarity_of_neighbors", "", "lower", digits=3),
        Measure("similar_blocks", "", "lower", digits=1),
    )

    def read(self, trained: Prepared, folder: RunFolder) -> Mapping[str, float]:
        try:
            report = diagnose(trained.network, spread_images(trained, self.images))
        except SiteError:  # no attention in it
            return {measure.name: math.nan for measure in self.measures}
        neighbors = report.similarity.diagonal(1)
        count = report.similar_blocks.get(self.threshold, math.nan)
        return {"similarity_of_neighbors": float(neighbors.nanmean()), "similar_blocks": float(count)}
