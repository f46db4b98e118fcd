"""How modules are called in settings and tables: by their path in the model that was asked, without its wrappers."""

from torch import nn

__all__ = ["prefix_of", "unwrapped_names"]

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def unwrapped_names(model: nn.Module) -> dict[nn.Module, str]:
    """Return the dotted path of every module, without the steps that compile, DDP, FSDP or averaging have put in.

    ``_orig_mod`` and the like are always such steps, ``module`` where its parent holds nothing else.

    Example:
        >>> wrapped = nn.ModuleDict({"module": nn.Sequential(nn.Linear(1, 1))})
        >>> list(unwrapped_names(wrapped).values())
        ['', '', '0']
    """
    names: dict[nn.Module, str] = {}
    by_path: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        by_path[path] = module
        above, _, last = path.rpartition(".")
        outer = names.get(by_path[above], "") if path else ""
        is_wrapper = last in _WRAPPERS or (last == "module" and list(by_path[above]._modules) == ["module"])
        names[module] = outer if not last or is_wrapper else f"{outer}.{last}" if outer else last
    return names


def prefix_of(names: dict[str, str]) -> str:
    """Return where in a model the sites of a handle begin, from their names now to those when it was applied."""
    prefixes = {now.removesuffix(then).removesuffix(".") for now, then in names.items() if now.endswith(then)}
    return prefixes.pop() if len(prefixes) == 1 else min(names)
