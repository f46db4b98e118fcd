"""The handles of a model that regularizers were applied to, also after deepcopy or unpickling."""

from torch import nn

from dropkey.adapters.handle import Handle, filled_slots
from dropkey.adapters.names import prefix_of
from dropkey.arguments import check_model
from dropkey.errors import SiteError
from dropkey.regularizers import Regularizer

__all__ = ["handle", "handles"]


def handle(model: nn.Module, regularizer: type[Regularizer] | Regularizer | None = None) -> Handle:
    """Return the handle of a model that a regularizer was applied to, also after deepcopy or unpickling.

    Args:
        model: the model, or one that contains it.
        regularizer: where there are several, the class of the one meant (``dropkey.DropKey``), or what was applied.

    Raises:
        SiteError: none was applied, or several were, or several copies are in this model: it lists them.
    """
    found = handles(model)
    fitting = [one for one in found if _is_meant(one.regularizer, regularizer)]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{_prefix(one) or 'all of it'}: {one.regularizer}" for one in found)
    if not found:
        raise SiteError(f"no regularizer was applied to this {type(model).__name__}: see dropkey.apply")
    if not fitting:
        raise SiteError(f"{regularizer} was not applied to this {type(model).__name__}; applied are {listed}")
    raise SiteError(
        f"several handles are on this {type(model).__name__} ({listed}): name one, as in dropkey.handle(model, "
        "dropkey.DropKey), ask the part of the model, or take dropkey.handles(model)"
    )


def handles(model: nn.Module) -> list[Handle]:
    """Return all handles of a model, in the order of their first site: one for each regularizer and each copy."""
    ids = dict.fromkeys(slot.handle_id for _, _, slot in filled_slots(check_model(model)))
    return [Handle(model, handle_id) for handle_id in ids]


def _is_meant(applied: Regularizer, asked: type[Regularizer] | Regularizer | None) -> bool:
    if asked is None:
        return True
    return isinstance(applied, asked) if isinstance(asked, type) else applied == asked


def _prefix(one: Handle) -> str:
    return prefix_of({name: site.name for name, site, _ in one._named_sites()})
