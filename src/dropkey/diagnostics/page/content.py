"""Reports as the plain data that the page's code reads."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from dropkey.diagnostics.page.coding import CODINGS, Coding
from dropkey.diagnostics.pooled_report import pooled
from dropkey.diagnostics.report import Report, SiteReport

__all__ = ["Stored", "model_data", "stored"]

_POOLED_PATCHES = (None, 144, 64)  # patches that a map may have, from what the report has to ever fewer


class Stored:
    """The maps of some reports as text, as fine as a number of bytes allows.

    Args:
        reports: whose maps are stored.
        coding: how finely.
        max_patches: patches that a map may have; None for those it has.
    """

    def __init__(self, reports: Mapping[str, Report], coding: Coding, max_patches: int | None) -> None:
        self.coding = coding
        self.max_patches = max_patches
        self.reports = [report if max_patches is None else pooled(report, max_patches) for report in reports.values()]

    @property
    def is_coarsest(self) -> bool:
        """Whether there is nothing smaller."""
        return self.coding == CODINGS[-1] and self.max_patches == _POOLED_PATCHES[-1]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Return the maps of each site in each image, under the names by which the page finds them."""
        for place, report in enumerate(self.reports):
            for number, site in enumerate(sites_of(report)):
                for image, maps in enumerate(site.maps):
                    yield f"m{place}-i{image}-s{number}", self.coding.encode(maps, prefix_of(site)).text()

    def estimate(self) -> float:
        """Return about how many bytes all maps take, from up to four sites of each report."""
        total = 0.0
        for report in self.reports:
            sites = sites_of(report)
            some = sites[:: max(1, len(sites) // 4)]
            lengths = sum(len(self.coding.encode(site.maps[0], prefix_of(site)).text()) for site in some)
            weights = sum(site.maps.numel() for site in sites) / sum(site.maps[0].numel() for site in some)
            total += lengths * weights
        return total

    def notes(self) -> Iterator[str]:
        """Say what was lost."""
        if self.max_patches is not None:
            yield f"So that the page stays small, its maps are pooled to at most {self.max_patches} cells"
        yield (
            "Prefix tokens and each row's two largest weights are stored as they are, the others in "
            f"{self.coding.levels} steps, within {self.coding.error:.0%} of their value down to "
            f"1/{2**self.coding.octaves:,.0f} of the largest of them"
        )


def stored(reports: Mapping[str, Report], max_bytes: int) -> tuple[Stored, dict[str, str]]:
    """Store maps as finely as fits into a number of bytes, or as coarsely as there is; return how, and the texts."""
    for max_patches in _POOLED_PATCHES:
        for coding in CODINGS:
            way = Stored(reports, coding, max_patches)
            if way.estimate() > 1.2 * max_bytes and not way.is_coarsest:
                continue
            texts = dict(way.texts())
            if sum(map(len, texts.values())) <= max_bytes or way.is_coarsest:
                return way, texts
    raise AssertionError("the coarsest way was returned")


def sites_of(report: Report) -> list[SiteReport]:
    """Return the sites of a report, and the rollout as one more."""
    sites = list(report.sites)
    if report.rollout is not None and report.rollout_site is not None:
        like = sites[report.rollout_site]
        sites.append(
            replace(
                like, name="attention rollout", kind="rollout", num_heads=1, maps=report.rollout[:, None], measures={}
            )
        )
    return sites


def prefix_of(site: SiteReport) -> int:
    """Return how many keys come before the patches; none where there are no patches."""
    return site.num_key_prefix if site.key_grid else 0


def model_data(label: str, report: Report) -> dict[str, Any]:
    """Return all of a report but its images and maps."""
    return {
        "label": label,
        "model": report.model,
        "sites": [_site(site) for site in sites_of(report)],
        "similarity": _numbers(report.similarity),
        "blocks": list(report.blocks),
        "featureSimilarity": _numbers(report.feature_similarity),
        "notes": list(report.notes),
    }


def _site(site: SiteReport) -> dict[str, Any]:
    return {
        "name": site.name,
        "kind": site.kind,
        "block": site.block_index,
        "heads": site.maps.shape[1],
        "shape": list(site.shape),
        "rows": site.maps.shape[2],
        "columns": site.maps.shape[3],
        "queryGrid": site.query_grid,
        "keyGrid": site.key_grid,
        "queryPrefix": site.num_query_prefix,
        "keyPrefix": site.num_key_prefix,
        "queryCell": site.query_cell,
        "keyCell": site.key_cell,
        "onImage": site.is_on_image,
        "measures": {name: _numbers(values) for name, values in site.measures.items()},
    }


def _numbers(values: Tensor) -> Any:
    """Return nested lists with four digits; None for what is not defined."""
    if values.dim():
        return [_numbers(value) for value in values]
    number = float(values)
    return float(f"{number:.4g}") if math.isfinite(number) else None
