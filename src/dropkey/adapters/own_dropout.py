"""A module's own attention dropout, set to zero while one of ours drops: so that attention is not regularized twice."""

from torch import nn

from dropkey.adapters.site import Site

__all__ = ["own_rates", "settle"]


def own_rates(module: nn.Module, names: tuple[str, ...]) -> dict[str, float]:
    """Return the attention dropout rates that a module has itself under these attributes; only those above 0."""
    rates = {}
    for name in names:
        held = getattr(module, name, None)
        rate = held.p if isinstance(held, nn.Dropout) else held
        if isinstance(rate, float) and rate > 0:
            rates[name] = rate
    return rates


def settle(module: nn.Module, site: Site) -> None:
    """Set the module's own rates to 0 if anything of ours that drops is enabled, and restore them if nothing is."""
    if site.slots.replaces_dropout:
        for name, rate in own_rates(module, site.entry.own_dropout).items():
            site.own_dropout[name] = rate
            _set_rate(module, name, 0.0)
    else:
        for name, rate in site.own_dropout.items():
            _set_rate(module, name, rate)
        site.own_dropout.clear()


def _set_rate(module: nn.Module, name: str, rate: float) -> None:
    held = getattr(module, name)
    if isinstance(held, nn.Dropout):
        held.p = rate
    else:
        setattr(module, name, rate)
