"""How modules are called in settings and tables: by their path in the model that was asked, without its wrappers."""

from torch import nn

__all__ = ["prefix_of", "shown", "unwrapped_names"]

# Steps that are always a wrapper's, and those that are one below modules of these classes.
_STEPS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer")
_STEPS_BELOW = {
    "module": {
        "DataParallel",
        "DistributedDataParallel",
        "AveragedModel",
        "ModelEmaV2",
        "ModelEmaV3",
        "DeepSpeedEngine",
    },
    "base_model": {"PeftModel"},
    "model": {"BaseTuner"},
}


def unwrapped_names(model: nn.Module) -> dict[nn.Module, str]:
    """Return the dotted path of every module, without the steps that compile, DDP, FSDP, averaging or peft have put in.

    Example:
        >>> list(unwrapped_names(nn.DataParallel(nn.Sequential(nn.Linear(1, 1)))).values())
        ['', '', '0']
    """
    names: dict[nn.Module, str] = {}
    by_path: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        by_path[path] = module
        above, _, last = path.rpartition(".")
        outer = names.get(by_path[above], "") if path else ""
        is_step = not last or last in _STEPS or _is_below(by_path[above], last)
        names[module] = outer if is_step else f"{outer}.{last}" if outer else last
    return names


def _is_below(wrapper: nn.Module, step: str) -> bool:
    classes = _STEPS_BELOW.get(step)
    return classes is not None and not classes.isdisjoint(cls.__name__ for cls in type(wrapper).__mro__)


def prefix_of(names: dict[str, str]) -> str:
    """Return where in a model the sites of a handle begin, from their names now to those when it was applied."""
    prefixes = {now.removesuffix(then).removesuffix(".") for now, then in names.items() if now.endswith(then)}
    return prefixes.pop() if len(prefixes) == 1 else min(names)


def shown(name: str) -> str:
    """Return a module's name as tables and messages show it."""
    return name or "(the model itself)"
