"""Statistics of batch norms, of which every process gathers its own in training: evaluation takes those of rank 0."""

from torch import nn
from torch.distributed import broadcast

__all__ = ["share_statistics"]


def share_statistics(network: nn.Module) -> None:
    """Give every process the floating buffers of rank 0, which are those that checkpoints keep.

    Training reads no statistics, so that once before an evaluation is enough.

    Args:
        network: on all processes of the default group, which have to call this together.
    """
    for buffer in network.buffers():
        if buffer.is_floating_point():
            broadcast(buffer, 0)
