"""What a look at a model's attention has shown: plain data, with figures and a page made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.text_table import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "SiteReport"]


@dataclass(frozen=True)
class SiteReport:
    """What was seen at one attention call of a module, image by image; all tensors are on the CPU.

    Args:
        name: dotted path of the module in its model; with "#2" and so on for further calls in one forward pass.
        kind: "self", "window", "cross", ... as in the handle's table.
        block_index: place of the module's block in the model, from 0.
        num_heads: H; of modules with several softmax maps a head, their number.
        shape: (Nq, Nk) of the maps before pooling; of a window, of one window.
        maps: float32 (B, H, Nq', Nk'), what the values are multiplied with. Prefix tokens first, then the patches row
            by row. Where ``key_cell`` is above 1 patches are pooled to square cells: weights of keys are summed, those
            of queries averaged, so rows still sum to 1.
        query_grid: (rows, cols) of the patches or cells among the queries of ``maps``; None if they are not patches
            (object queries, a class token alone).
        key_grid: likewise of the keys.
        num_query_prefix: queries before the patches; all of them where ``query_grid`` is None.
        num_key_prefix: keys before the patches (class, register, distillation tokens); all where ``key_grid`` is None.
        query_cell: side of the cells, in patches; 1 where nothing was pooled.
        key_cell: likewise of the keys.
        is_on_image: whether the grids are those of the image; otherwise of a window, and ``maps`` are means over them.
        measures: float32 (B, H) by name, see ``MEASURES``; NaN where a measure is not defined.
    """

    name: str
    kind: str
    block_index: int
    num_heads: int
    shape: tuple[int, int]
    maps: Tensor = field(repr=False)
    query_grid: tuple[int, int] | None
    key_grid: tuple[int, int] | None
    num_query_prefix: int
    num_key_prefix: int
    query_cell: int
    key_cell: int
    is_on_image: bool
    measures: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Report:
    """What ``dropkey.diagnose`` has seen: ``print`` it for a table, ``figure`` draws it, ``save`` writes a page.

    S is the number of sites, B of images.

    Args:
        model: the model's class name.
        images: float32 (B, C, height, width), as the model was given them.
        sites: one for each attention call, in the order of the model's blocks.
        similarity: float32 (S, S), DeepViT's cross-layer similarity of every pair of sites; NaN for pairs whose maps
            are not comparable (of other shapes, or of windows), and on the diagonal of such sites.
        similar_blocks: number of sites that attend as the site before does, by the threshold of the cosine.
        blocks: names of the blocks whose outputs were compared.
        feature_similarity: float32 (len(blocks), len(blocks)), of block outputs; NaN for pairs of other shapes.
        rollout: float32 (B, N', N') of the sites of plain self-attention, pooled as their maps are, or None where they
            do not all see the same tokens. Row i says what reached token i.
        rollout_site: index in ``sites`` of the site whose grid and prefix ``rollout`` has; None without a rollout.
        notes: what a reader must know: pooling, modules that were not seen, each one line.
    """

    model: str
    images: Tensor = field(repr=False)
    sites: tuple[SiteReport, ...]
    similarity: Tensor = field(repr=False)
    similar_blocks: dict[float, int]
    blocks: tuple[str, ...] = field(repr=False)
    feature_similarity: Tensor = field(repr=False)
    rollout: Tensor | None = field(repr=False)
    rollout_site: int | None
    notes: tuple[str, ...]

    def measure(self, name: str) -> Tensor:
        """Return a measure of every site, averaged over images and heads: float32 (S,).

        Raises:
            ArgumentError: no such measure.
        """
        known = self.sites[0].measures
        if name not in known:
            raise ArgumentError(f"no measure {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
        return torch.stack([site.measures[name].nanmean() for site in self.sites])

    def figure(self, kind: str = "maps", **options: Any) -> "Figure":
        """Draw a figure with matplotlib.

        Args:
            kind: "maps", "overlay", "measures" or "similarity".
            options: of the figure: see ``dropkey.diagnostics.figures``.

        Returns:
            A matplotlib Figure: ``savefig`` writes it, notebooks show it.

        Raises:
            ArgumentError: an unknown kind, or an option that does not fit.
        """
        from dropkey.diagnostics.figures import draw

        return draw(self, kind, **options)

    def save(
        self,
        path: str | Path,
        *,
        label: str | None = None,
        beside: "Mapping[str, Report] | None" = None,
        title: str | None = None,
        names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Path:
        """Write a page: one HTML file to look at in any browser, without a network.

        Args:
            path: of the file.
            label: what the page calls this model; by default its class name.
            beside: reports of other models on the same images, by label: the page shows two of them side by side.
            title: of the page.
            names: of the images.
            mean: what was subtracted from each channel of the images, in [0, 1]; None stretches them.
            std: what was divided by.

        Returns:
            The path.

        Raises:
            ArgumentError: reports on other images, or two of one label.
            RunError: the file cannot be written.

        Example:
            >>> import torch, dropkey
            >>> from torchvision.models import VisionTransformer
            >>> report = dropkey.diagnose(VisionTransformer(32, 8, 2, 2, 16, 32), torch.randn(1, 3, 32, 32))
            >>> path = report.save("attention.html")  # doctest: +SKIP
        """
        from dropkey.diagnostics.page.page import save

        label = label or self.model
        if beside is not None and label in beside:
            raise ArgumentError(f"two reports of the page are called {label!r}: give this one another label")
        reports = {label: self, **(beside or {})}
        return save(path, reports, title=title, names=names, mean=mean, std=std)

    def __str__(self) -> str:
        header = ["site", "kind", "heads", "queries x keys", *self.sites[0].measures]
        rows = [[s.name, s.kind, str(s.num_heads), "{} x {}".format(*s.shape), *_cells(s)] for s in self.sites]
        similar = ", ".join(f"{count} above {threshold:g}" for threshold, count in self.similar_blocks.items())
        lines = [f"{self.model}, {len(self.images)} images", text_table([header, *rows])]
        if self.similar_blocks:
            lines.append(f"Sites that attend as the site before does, by the cosine of 0.9 of their columns: {similar}")
        return "\n".join([*lines, *self.notes])


def _cells(site: SiteReport) -> list[str]:
    means = (float(values.nanmean()) for values in site.measures.values())
    return ["-" if mean != mean else f"{mean:.3g}" for mean in means]
