"""A report with smaller maps."""

from dataclasses import replace

from dropkey.diagnostics.pooling import pool
from dropkey.diagnostics.report import Report, SiteReport
from dropkey.diagnostics.token_grid import TokenGrid

__all__ = ["pooled"]


def pooled(report: Report, max_patches: int) -> Report:
    """Return a report whose maps have at most so many patches; measures stay those of the whole maps."""
    sites = tuple(_pooled_site(site, max_patches) for site in report.sites)
    rollout = report.rollout
    if rollout is not None and report.rollout_site is not None:
        like = report.sites[report.rollout_site]
        rollout = _pooled_site(replace(like, maps=rollout[:, None]), max_patches).maps[:, 0]
    return replace(report, sites=sites, rollout=rollout)


def _pooled_site(site: SiteReport, max_patches: int) -> SiteReport:
    queries = TokenGrid(site.query_grid, site.num_query_prefix)
    keys = TokenGrid(site.key_grid, site.num_key_prefix)
    query_cell, key_cell = queries.cell_for(max_patches), keys.cell_for(max_patches)
    return replace(
        site,
        maps=pool(site.maps, queries, keys, query_cell, key_cell),
        query_grid=queries.pooled(query_cell) if queries.size else None,
        key_grid=keys.pooled(key_cell) if keys.size else None,
        query_cell=site.query_cell * query_cell,
        key_cell=site.key_cell * key_cell,
    )
