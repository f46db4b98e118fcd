"""A family of models: a small one to run, and the name of a public one to count."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Family", "images"]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: what people call it.
        library: where it lives.
        public: a model of the family that people use, by its name in the library.
        full: makes the public model, with random weights.
        small: makes a small one.
        inputs: makes what the small model's forward takes, as keyword arguments under their names; an image batch goes
            by position under the name ``""``.
    """

    name: str
    library: str
    public: str
    full: Callable[[], nn.Module]
    small: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any]]

    def call(self, model: nn.Module) -> Any:
        """Run the small model on its inputs."""
        arguments = self.arguments()
        return model(*arguments[0], **arguments[1])

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments for the small model."""
        inputs = self.inputs()
        by_position = (inputs.pop(""),) if "" in inputs else ()
        return by_position, inputs


def images(size: int, batch: int = 2) -> Tensor:
    """Return a batch of noise, (batch, 3, size, size), always the same."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
