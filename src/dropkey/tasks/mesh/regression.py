"""Plain regression of the same points, to see what the transformer adds."""

from torch import Tensor, nn

from dropkey.tasks.mesh.metro import MetroShape

__all__ = ["Regression"]


class Regression(nn.Module):
    """Predict joints and coarse vertices from the features of a backbone by one linear layer.

    Args:
        template: (tokens, 3) joints and coarse vertices; their number alone counts.
        shape: nothing of it is used.
        channels: C of the features.
        places: rows x cols of the features.
    """

    def __init__(self, template: Tensor, shape: MetroShape, channels: int, places: int) -> None:
        super().__init__()
        self.width = channels
        self.head = nn.Linear(channels * places, 3 * len(template))
        nn.init.normal_(self.head.weight, std=0.001)  # training begins near the mean body
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (B, tokens, 3) and the mean feature (B, C), of features (B, C, rows, cols)."""
        return self.head(features.flatten(1)).unflatten(1, (-1, 3)), features.mean((2, 3))
