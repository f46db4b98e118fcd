"""Whether a module does what its class says and nothing else: only then may it be computed without being called.

Hooks, a forward set on an instance or put into the class, weights that are something else than numbers in memory, and
transforms of torch.func all act when a module is called. Whoever computes its result in another way must know that
there are none.
"""

import sys
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack

from dropkey.ops.ordinary import is_plain
from dropkey.ops.transforms import active_transform

__all__ = [
    "has_plain_parameters",
    "is_as_written",
    "is_plain_linear",
    "modes_look_on",
    "nobody_looks_on",
    "nobody_looks_on_any",
]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in _HOOKS)
_CALLS = nn.Module.__call__, nn.Module._call_impl
_FORWARDS: dict[type[nn.Module], Any] = {cls: cls.forward for cls in (nn.Linear, nn.Conv2d, nn.BatchNorm2d)}


def is_as_written(cls: type, module_name: str, class_name: str) -> bool:
    """Say whether a class is the one of this name, with the forward that its file has."""
    if cls.__module__ != module_name or cls.__qualname__ != class_name:
        return False
    forward, source = vars(cls).get("forward"), sys.modules.get(module_name)
    code = getattr(forward, "__code__", None)
    if code is None or source is None:
        return False
    return bool(code.co_qualname == f"{class_name}.forward" and code.co_filename == source.__file__)


def nobody_looks_on(module: nn.Module, kinds: Collection[tuple[str, str]]) -> bool:
    """Say whether a module is exactly of one of the kinds (module, class), and its call does nothing else."""
    cls = type(module)
    return (cls.__module__, cls.__qualname__) in kinds and "forward" not in vars(module) and not _is_heard(module)


def nobody_looks_on_any(*modules: nn.Module) -> bool:
    """Say whether nothing but their forward happens when these modules are called."""
    untouched = not any("forward" in vars(module) or _is_heard(module) for module in modules)
    return untouched and all(_FORWARDS.get(type(m), type(m).forward) is type(m).forward for m in modules)


def is_plain_linear(layer: nn.Module, x: Tensor, out_features: int | None = None) -> bool:
    """Say whether a layer is torch's own linear one with plain parameters where x is, and may be computed by itself."""
    if type(layer) is not nn.Linear or active_transform() or not nobody_looks_on_any(layer):
        return False
    if out_features is not None and layer.weight.shape != (out_features, x.shape[-1]):
        return False
    return has_plain_parameters(layer, x.device)


def has_plain_parameters(module: nn.Module, device: torch.device) -> bool:
    """Say whether all parameters and buffers of a module are numbers in memory on a device."""
    parameters, buffers = (held.values() for held in (module._parameters, module._buffers))
    is_bare = all(p is None or type(p) is nn.Parameter for p in parameters)  # not stood in for by functional_call
    return is_bare and all(t is None or (is_plain(t) and t.device == device) for t in (*parameters, *buffers))


def modes_look_on() -> bool:
    """Say whether anybody is told of each function or operator that runs, other than to choose the default device."""
    if torch._C._len_torch_dispatch_stack():
        return True
    if not torch._C._len_torch_function_stack():
        return False
    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return any(type(mode).__module__ != "torch.utils._device" for mode in modes)


def _is_heard(module: nn.Module) -> bool:
    """Say whether anybody listens to a module, to all modules, or to the calling of modules itself."""
    if (nn.Module.__call__, nn.Module._call_impl) != _CALLS or _hears_globally():
        return True
    return any(getattr(module, name) for name in _HOOKS)


def _hears_globally() -> bool:
    return any(getattr(torch_module, name) for name in _GLOBAL_HOOKS)
