"""The site of an attention module that has been found: a new one, or the one that it carries."""

from dropkey.adapters.discover import Found
from dropkey.adapters.site import Site, attach, site_of

__all__ = ["new_site", "site_to_fill"]

Grid = tuple[int, int]


def new_site(f: Found, grid_size: Grid | None = None, num_prefix_tokens: int | None = None) -> Site:
    """Return a site without slots; grid and prefix tokens are those found where not given."""
    carried = site_of(f.module)
    return Site(
        name=f.name,
        entry=f.entry,
        block_index=f.block_index,
        original_class=type(f.module) if carried is None else carried.original_class,
        grid_size=f.grid_size if grid_size is None else grid_size,
        num_prefix_tokens=f.num_prefix_tokens if num_prefix_tokens is None else num_prefix_tokens,
        grid_is_given=grid_size is not None,
    )


def site_to_fill(f: Found, grid_size: Grid | None, num_prefix_tokens: int | None) -> Site:
    """Return the site of a module for one more slot; one that is there for its listeners alone is made anew."""
    site = site_of(f.module)
    if site is not None and site.slots:
        if grid_size is not None:
            site.grid_size, site.grid_is_given = grid_size, True
        if num_prefix_tokens is not None:
            site.num_prefix_tokens = num_prefix_tokens
        return site
    fresh = new_site(f, grid_size, num_prefix_tokens)
    if site is not None:
        fresh.listeners = site.listeners
        attach(f.module, fresh)
    return fresh
