"""One attention call of a model, and what was seen there in image after image."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dropkey.diagnostics.heard import Heard
from dropkey.diagnostics.pooling import pool, pool_windows
from dropkey.diagnostics.report import SiteReport
from dropkey.diagnostics.site_measures import measured
from dropkey.diagnostics.token_grid import TokenGrid, grid_by_shape
from dropkey.diagnostics.windows import WindowPlaces

__all__ = ["SeenSite"]

Grid = tuple[int, int]


class SeenSite:
    """Keeps pooled maps and measures of one attention call.

    Args:
        name: of the site in the report.
        heard: the call in the first image.
        grids: (rows, cols) of the patches of this pass, where modules say so.
        image: (height, width) in pixels.
        max_patches: that a kept map may have.
        places: where its windows lie, if that is known.
    """

    def __init__(
        self,
        name: str,
        heard: Heard,
        grids: Mapping[nn.Module, Grid],
        image: Grid,
        max_patches: int,
        places: WindowPlaces | None = None,
    ) -> None:
        found, (self.num_maps, self.num_heads, num_queries, num_keys) = heard.found, heard.shape
        self.name = name
        self.kind = found.kind
        self.block_index = found.block_index
        self.shape = num_queries, num_keys
        known = grids.get(found.module, found.grid_size)
        # Windows are their own grid; what a decoder asks with, or has as its own keys, is no picture.
        shape_of_keys = None if found.kind in ("window", "decoder self") else image
        shape_of_queries = shape_of_keys if found.kind in ("self", "encoder self") else None
        self.keys = grid_by_shape(num_keys, found.num_prefix_tokens, known, shape_of_keys)
        if num_queries == num_keys and found.kind != "decoder cross":
            self.queries = self.keys
        else:
            self.queries = grid_by_shape(num_queries, found.num_prefix_tokens, None, shape_of_queries)
        self.places = places
        # What its maps are kept over: windows are put back on the image where it is known how they lie.
        self.kept_queries = self.queries if places is None else TokenGrid(places.queries.grid, 0)
        self.kept_keys = self.keys if places is None else TokenGrid(places.keys.grid, 0)
        self.query_cell = self.kept_queries.cell_for(max_patches)
        self.key_cell = self.kept_keys.cell_for(max_patches)
        self.maps: list[Tensor] = []
        self.measures: list[dict[str, Tensor]] = []

    @property
    def is_pooled(self) -> bool:
        """Whether its maps are kept smaller than they are."""
        return self.query_cell > 1 or self.key_cell > 1

    @property
    def is_on_image(self) -> bool:
        """Whether its grids are those of the image, and not of a window somewhere."""
        return self.kind != "window" or self.places is not None

    @property
    def is_rolled(self) -> bool:
        """Whether rollout goes through it."""
        return self.kind in ("self", "encoder self") and self.num_maps == 1 and self.shape[0] == self.shape[1]

    def see(self, heard: Heard, attn: Tensor) -> None:
        """Take the call in one more image, and its maps."""
        pooled = self.pooled(attn)
        ranked = attn if self.places is not None else pooled
        values = measured(attn, ranked, heard.value, self.queries, self.keys)
        self.measures.append({name: value.nanmean(0, keepdim=True) for name, value in values.items()})
        self.maps.append(pooled.mean(0, keepdim=True).float().cpu())

    def pooled(self, attn: Tensor) -> Tensor:
        """Return maps (B, H, Nq, Nk) as small as they are kept."""
        if self.places is not None:
            return pool_windows(attn, self.places, self.query_cell, self.key_cell)
        return pool(attn, self.queries, self.keys, self.query_cell, self.key_cell)

    def report(self) -> SiteReport:
        """Return what was seen in all images."""
        return SiteReport(
            name=self.name,
            kind=self.kind,
            block_index=self.block_index,
            num_heads=self.num_heads,
            shape=self.shape,
            maps=torch.cat(self.maps),
            query_grid=self.kept_queries.pooled(self.query_cell) if self.kept_queries.size else None,
            key_grid=self.kept_keys.pooled(self.key_cell) if self.kept_keys.size else None,
            num_query_prefix=self.kept_queries.num_prefix,
            num_key_prefix=self.kept_keys.num_prefix,
            query_cell=self.query_cell,
            key_cell=self.key_cell,
            is_on_image=self.is_on_image,
            measures={name: torch.cat([each[name] for each in self.measures]) for name in self.measures[0]},
        )
