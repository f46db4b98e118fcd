"""Two processes on one machine: masks differ between ranks that were seeded alike; DDP trains, and FSDP likewise."""

import pytest
import torch
from conftest import tiny_vit
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import dropkey
from dropkey.philox import draw_seed
from dropkey.runs.statistics_of_norms import share_statistics


def worker(rank, file, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    try:
        seen = {"copies": train_copies(), "shards": train_shards(rank), "statistics": shared_statistics(rank)}
        torch.save(seen, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    spawn(worker, (str(folder / "store"), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def train_copies():
    torch.manual_seed(7)
    seed = int(draw_seed(torch.device("cpu")))
    torch._dynamo.reset()
    compiled = int(torch.compile(lambda: draw_seed(torch.device("cpu")), fullgraph=True, backend="eager")())
    model = DistributedDataParallel(tiny_vit(depth=2))
    handle = dropkey.apply(model.module, dropkey.DropKey(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(7)
    images = torch.randn(2, 3, 32, 32)  # the same on both ranks: only the masks differ
    out = model(images)
    optimizer.zero_grad()
    out.square().sum().backward()
    optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    others = [torch.empty_like(weights) for _ in range(2)]
    distributed.all_gather(others, weights)
    return {
        "seed": seed,
        "compiled": compiled,
        "out": out.detach(),
        "agree": torch.equal(*others),
        "sites": len(handle.sites),
    }


def test_ranks_draw_different_masks_and_stay_in_step(ranks):
    first, second = (rank["copies"] for rank in ranks)
    assert first["seed"] != second["seed"]
    assert first["compiled"] != second["compiled"]
    assert not torch.equal(first["out"], second["out"])
    assert first["agree"]
    assert second["agree"]
    assert first["sites"] == 2


def regularized():
    """The same model each time, with keys dropped and maps mixed, and the handle of what drops."""
    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant"))
    dropkey.apply(model, dropkey.ReAttention(last=1, norm="layer"))
    model.blocks[-1].attn.reattention.gate.data.fill_(0.5)
    return model, handle


def step(model, rank):
    """Take the gradients of one step on the rank's images, with the rank's masks, and return the output."""
    torch.manual_seed(7)
    out = model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(rank)))
    out.square().sum().backward()
    return out.detach()


def train_shards(rank):
    (whole, _), (shards, handle) = regularized(), regularized()
    keys = list(shards.state_dict())
    mesh = init_device_mesh("cpu", (2,))
    for block in shards.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(shards, mesh=mesh)
    out, whole_out = step(shards, rank), step(whole, rank)
    gradients = {}
    for name, parameter in whole.named_parameters():
        distributed.all_reduce(parameter.grad)
        gradients[name] = (parameter.grad / 2, shards.get_parameter(name).grad.full_tensor())
    local = sum(parameter.to_local().numel() for parameter in shards.parameters())
    return {
        "out": out,
        "whole_out": whole_out,
        "gradients": gradients,
        "share": local / sum(parameter.numel() for parameter in whole.parameters()),
        "same_keys": keys == list(shards.state_dict()),
        "verified": str(handle.verify(torch.randn(2, 3, 32, 32))),
    }


def test_shards_drop_and_learn_as_the_whole_does(ranks):
    for seen in (rank["shards"] for rank in ranks):
        assert 0.4 < seen["share"] < 0.6
        assert seen["same_keys"]
        assert seen["verified"].count("drops as it should") == 3
        torch.testing.assert_close(seen["out"], seen["whole_out"])
        for whole, shards in seen["gradients"].values():
            torch.testing.assert_close(shards, whole)


def test_shards_of_other_ranks_see_other_masks(ranks):
    assert not torch.equal(*(rank["shards"]["out"] for rank in ranks))


def shared_statistics(rank):
    """Statistics of a norm before and after they were shared, and its weight, which a process keeps."""
    norm = torch.nn.BatchNorm1d(3)
    norm(torch.randn(8, 3, generator=torch.Generator().manual_seed(rank)))
    torch.nn.init.constant_(norm.weight, rank)
    own = norm.running_mean.clone(), norm.running_var.clone()
    share_statistics(torch.nn.Sequential(norm))
    return {"own": own, "shared": (norm.running_mean, norm.running_var), "weight": float(norm.weight[0])}


def test_statistics_of_norms_become_those_of_rank_0(ranks):
    first, second = (rank["statistics"] for rank in ranks)
    for of_first, of_second, shared in zip(first["own"], second["own"], second["shared"], strict=True):
        assert not torch.equal(of_first, of_second)
        assert torch.equal(shared, of_first)
    assert [first["weight"], second["weight"]] == [0, 1]
