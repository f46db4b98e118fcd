"""What of a report a figure shows: sites, and where one query looks."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from dropkey.diagnostics.report import Report, SiteReport
from dropkey.errors import ArgumentError

__all__ = ["check_image", "chosen_sites", "look_of", "picture", "query_name", "rolled_look"]

_MOST_ROWS = 6


def check_image(report: Report, image: int) -> int:
    """Return the number of an image, or raise an ArgumentError if there is none of it."""
    if not 0 <= image < len(report.images):
        raise ArgumentError(f"the report has images 0 to {len(report.images) - 1}, got {image}")
    return image


def chosen_sites(report: Report, sites: Sequence[int | str] | None) -> list[SiteReport]:
    """Return sites by place or name; by default those whose keys are patches, at most six from first to last.

    Raises:
        ArgumentError: no such site, or none with patches as keys.
    """
    if sites is not None:
        by_name = {site.name: site for site in report.sites}
        try:
            return [by_name[site] if isinstance(site, str) else report.sites[site] for site in sites]
        except (KeyError, IndexError):
            raise ArgumentError(
                f"sites must be 0 to {len(report.sites) - 1} or of {', '.join(by_name)}, got {list(sites)}"
            ) from None
    drawable = [site for site in report.sites if site.key_grid is not None and site.is_on_image]
    if not drawable:
        raise ArgumentError("no site of this report has patches of the image as keys, so nothing can be drawn")
    count = min(_MOST_ROWS, len(drawable))
    return [drawable[round(place * (len(drawable) - 1) / max(1, count - 1))] for place in range(count)]


def look_of(site: SiteReport, image: int, query: int | tuple[int, int] | None) -> Tensor:
    """Return where each head looks: float32 (H, rows, cols), weights of patches or cells.

    Args:
        site: with patches as keys.
        image: which of the report's.
        query: a token, prefix tokens first; (row, col) of a patch or cell; or None for the first token if it is a
            prefix token, and otherwise the mean over all queries.

    Raises:
        ArgumentError: keys that are no patches, or no such query.
    """
    if site.key_grid is None or not site.is_on_image:
        raise ArgumentError(f"the keys of {site.name} are no patches of the image, so they cannot be drawn on it")
    maps = site.maps[image]
    is_mean = query is None and not site.num_query_prefix
    rows = maps.mean(1) if is_mean else maps[:, _token(site, query or 0)]
    return rows[:, site.num_key_prefix :].reshape(-1, *site.key_grid)


def _token(site: SiteReport, query: int | tuple[int, int]) -> int:
    count, grid = site.maps.shape[2], site.query_grid
    if isinstance(query, int):
        if 0 <= query < count:
            return query
        raise ArgumentError(f"{site.name} has queries 0 to {count - 1}, got {query}")
    row, col = query
    if grid is None or not (0 <= row < grid[0] and 0 <= col < grid[1]):
        raise ArgumentError(f"{site.name} has {'no patches' if grid is None else grid} as queries, got {query}")
    return site.num_query_prefix + row * grid[1] + col


def query_name(site: SiteReport, query: int | tuple[int, int] | None) -> str:
    """Return what titles call a query."""
    if query is None:
        return "the first token" if site.num_query_prefix else "the mean over all queries"
    return f"token {query}" if isinstance(query, int) else f"the patch at row {query[0]}, column {query[1]}"


def rolled_look(report: Report, image: int, query: int | tuple[int, int] | None) -> Tensor | None:
    """Return what of the patches reached a token by rollout: float32 (rows, cols); None without a rollout."""
    if report.rollout is None or report.rollout_site is None:
        return None
    site = report.sites[report.rollout_site]
    if site.key_grid is None:
        return None
    return look_of(replace(site, maps=report.rollout[:, None]), image, query)[0]


def picture(report: Report, image: int) -> Tensor:
    """Return an image of a report as float32 (3, height, width) in [0, 1]: its first channels, or the first as gray.

    What normalized it is not known, so each channel is stretched to its full range.
    """
    pixels = report.images[image]
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    return (pixels - low) / (high - low).clamp(min=1e-12)
