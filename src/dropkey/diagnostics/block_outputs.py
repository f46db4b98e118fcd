"""What the blocks of a model put out: the features whose likeness over depth shows collapse."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from dropkey.adapters.discover import Found, block_path

__all__ = ["block_outputs"]


@contextlib.contextmanager
def block_outputs(model: nn.Module, found: Sequence[Found]) -> Iterator[dict[str, Tensor]]:
    """Keep the output (B, N, C) of every block that has one of these attention modules, by the block's path.

    Axes between the first and the last, rows and columns, are flattened. Blocks with other outputs are left out.
    """
    outputs: dict[str, Tensor] = {}
    hooks = []
    for path in dict.fromkeys(block_path(f.name) for f in found):

        def keep(block: nn.Module, args: Any, output: Any, path: str = path) -> None:
            tensor = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(tensor, Tensor) and tensor.dim() >= 3:
                outputs[path] = tensor.detach().flatten(1, -2)

        hooks.append(model.get_submodule(path).register_forward_hook(keep))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
