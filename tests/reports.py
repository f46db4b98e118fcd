"""Reports with maps of one's own, for tests of pages."""

import torch
from conftest import tiny_vit

import dropkey
from dropkey.diagnostics.report import Report, SiteReport

__all__ = ["of_vit", "planted"]

MEASURES = ("entropy", "peak", "distance")


def planted(
    *, sites=3, heads=2, grid=(4, 6), prefix=2, images=2, seed=0, model="Planted", size=(64, 96), artifact=None
) -> Report:
    """Return a report with random maps: rows sum to 1 and weights differ by orders of magnitude.

    Args:
        artifact: a key that gets nearly all attention of every query.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = prefix + grid[0] * grid[1]
    logits = 3 * torch.randn(sites, images, heads, tokens, tokens, generator=generator)
    if artifact is not None:
        logits[..., artifact] += 20
    maps = logits.softmax(-1)
    return Report(
        model=model,
        images=torch.rand(images, 3, *size, generator=generator),
        sites=tuple(_site(f"blocks.{number}.attn", number, maps[number], grid, prefix) for number in range(sites)),
        similarity=torch.rand(sites, sites, generator=generator).fill_diagonal_(1),
        similar_blocks={0.5: 1},
        blocks=tuple(f"blocks.{number}" for number in range(sites)),
        feature_similarity=torch.eye(sites),
        rollout=maps[0].mean(1),
        rollout_site=0,
        notes=("a note with <b>marks</b>",),
    )


def _site(name, number, maps, grid, prefix):
    measures = {measure: torch.rand(len(maps), maps.shape[1]) for measure in MEASURES}
    measures["distance"][:] = torch.nan
    shape = (maps.shape[2], maps.shape[3])
    return SiteReport(
        name, "self", number, maps.shape[1], shape, maps, grid, grid, prefix, prefix, 1, 1, True, measures
    )


def of_vit(images) -> Report:
    """Return a real report, of a small ViT."""
    return dropkey.diagnose(tiny_vit(), images)
