"""Parameters, gradients and optimizer states split over the processes: PyTorch's FSDP2."""

import lightning.pytorch as pl
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from dropkey.adapters.discover import attention_modules

__all__ = ["make_sharded", "shard", "sharding"]


class _Sharded(pl.LightningModule):
    """A module whose network is sharded over all processes once they run."""

    network: nn.Module

    def configure_model(self) -> None:
        assert self.device_mesh is not None
        shard(self.network, self.device_mesh["data_parallel"])


def make_sharded(module: pl.LightningModule) -> None:
    """Let a module shard its network: by its class, since Lightning asks the class whether it does."""
    module.__class__ = type(f"Sharded{type(module).__name__}", (_Sharded, type(module)), {})


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
