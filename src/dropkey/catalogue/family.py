"""A family of models: a small one to run, and the name of a public one to count."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Family", "Trial", "images"]


class Trial(NamedTuple):
    """A model and what its forward takes.

    Args:
        model: any model.
        inputs: keyword arguments under their names; an image batch goes by position under the name ``""``.
    """

    model: nn.Module
    inputs: dict[str, Any]

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments of the forward."""
        return _arguments(self.inputs)

    def __str__(self) -> str:
        shapes = (f"{name or 'images'} {tuple(value.shape)}" for name, value in self.inputs.items())
        return f"{type(self.model).__name__}, untrained, on {', '.join(shapes)}"


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: what people call it.
        library: where it lives.
        public: a model of the family that people use, by its name in the library.
        full: makes the public model, with random weights.
        small: makes a small one.
        inputs: makes what the small model's forward takes, as in a Trial.
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
        return _arguments(self.inputs())


def _arguments(inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    by_name = {name: value for name, value in inputs.items() if name}
    return ((inputs[""],) if "" in inputs else ()), by_name


def images(size: int | tuple[int, int], batch: int = 2, channels: int = 3) -> Tensor:
    """Return a batch of noise, (batch, channels, height, width), always the same."""
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
