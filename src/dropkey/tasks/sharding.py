"""Parameters, gradients and optimizer states split over the processes: PyTorch's FSDP2."""

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from dropkey.adapters.discover import attention_modules
from dropkey.tasks.classification import Classification

__all__ = ["ShardedClassification", "shard", "sharding"]


class ShardedClassification(Classification):
    """Classification whose network is sharded over all processes once they run."""

    def configure_model(self) -> None:
        assert self.device_mesh is not None
        shard(self.network, self.device_mesh["data_parallel"])

    def forward(self, images: Tensor) -> Tensor:
        for buffer in self.network.buffers():  # statistics of batch norms are not sharded: those of rank 0, as in DDP
            if buffer.is_floating_point():
                broadcast(buffer, 0)
        return super().forward(images)


def sharding(world_size: int) -> ModelParallelStrategy:
    """Return the strategy that shards over ``world_size`` processes, with each checkpoint whole in one file."""
    return ModelParallelStrategy(
        data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a network in place, one group of parameters a block.

    A process holds the whole of one block at a time; a network without known attention is one group.

    Args:
        network: with its regularizer on it already.
        mesh: of one dimension.
    """
    for block in _blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Return the modules around each attention, the root left out."""
    names = {found.name.rpartition(".")[0] for found in attention_modules(network)}
    modules = [network.get_submodule(name) for name in sorted(names, reverse=True) if name]  # inner ones come first
    return [module for module in modules if not isinstance(module, nn.ModuleList | nn.ModuleDict)]
