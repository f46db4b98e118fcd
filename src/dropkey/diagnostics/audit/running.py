"""Which module runs: hooks on all modules of the process, for as long as somebody looks."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["Running"]


class Running:
    """The modules that are in their forward, innermost last, and all that have been.

    Modules that are registered nowhere (kept in a plain list) are seen as well: ``parents`` says who ran them.
    """

    def __init__(self) -> None:
        self._stack: list[nn.Module] = []
        self._places: list[int] = []
        self.parents: dict[nn.Module, nn.Module | None] = {}
        self.modes: dict[nn.Module, bool] = {}  # while it ran
        self.inputs: dict[nn.Module, Tensor] = {}  # of modules that were given one tensor and nothing else

    @property
    def innermost(self) -> nn.Module | None:
        """The module whose forward runs code now."""
        return self._stack[-1] if self._stack else None

    def next_place(self) -> int:
        """Count the drops of one forward of the innermost module."""
        if not self._places:
            return 0
        self._places[-1] += 1
        return self._places[-1] - 1

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Follow the modules that run in this block."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.parents.setdefault(module, self.innermost)
        self.modes[module] = module.training
        if len(args) == 1 and isinstance(args[0], Tensor):
            self.inputs.setdefault(module, args[0])
        self._stack.append(module)
        self._places.append(0)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        while self._stack and self._stack.pop() is not module:
            self._places.pop()
        if self._places:
            self._places.pop()
