"""Two processes on one machine: masks differ between ranks that were seeded alike, and DDP trains."""

import torch
from conftest import tiny_vit
from torch import distributed
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import dropkey
from dropkey.philox import draw_seed


def worker(rank, file, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    try:
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
        torch.save(
            {
                "seed": seed,
                "compiled": compiled,
                "out": out.detach(),
                "agree": torch.equal(*others),
                "sites": len(handle.sites),
            },
            f"{folder}/{rank}.pt",
        )
    finally:
        distributed.destroy_process_group()


def test_ranks_draw_different_masks_and_stay_in_step(tmp_path):
    spawn(worker, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["seed"] != second["seed"]
    assert first["compiled"] != second["compiled"]
    assert not torch.equal(first["out"], second["out"])
    assert first["agree"]
    assert second["agree"]
    assert first["sites"] == 2
