"""How alike the attention maps of neighboring blocks are in trained runs: ``python benchmarks/collapse.py RUN...``

For each run folder: validation accuracy, mean cosine similarity of neighboring maps as DeepViT's loss has it, and the
number of blocks that are similar to the block before, at several thresholds; where Re-attention makes the maps, the
same of what it made them from.
"""

import sys
from pathlib import Path

import torch

from dropkey.adapters.apply import apply
from dropkey.adapters.maps import attention_maps
from dropkey.diagnostics import map_similarity, similar_blocks
from dropkey.ops.reattention import HeadMixing
from dropkey.regularizers import DropKey
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.loading import load_run

NUM_IMAGES = 256
THRESHOLDS = (0.5, 0.7, 0.9)


def main(roots: list[str]) -> None:
    measures = "mean similarity; similar blocks at " + ", ".join(map(str, THRESHOLDS))
    print(f"run | val accuracy | {measures} | before Re-attention")
    for root in roots:
        folder = RunFolder(Path(root))
        maps, unmixed = maps_of(folder)
        accuracy = folder.read_summary()["final_val_accuracy"]
        print(f"{root} | {accuracy:.4f} | {measured(maps)} | {measured(unmixed) if unmixed else '-'}")


def measured(maps: list[torch.Tensor]) -> str:
    counts = ", ".join(str(sum(similar_blocks(maps, threshold))) for threshold in THRESHOLDS)
    return f"{map_similarity(maps).item():.3f}; {counts} of {len(maps) - 1}"


def maps_of(folder: RunFolder) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the maps of every block on the first validation images, in evaluation mode, and what was mixed to them."""
    trained = load_run(folder)
    images = spread(trained.data.val_dataloader()[0].dataset)
    if trained.handle is None:
        apply(trained.network, DropKey(0.0))
    unmixed: list[torch.Tensor] = []
    for module in trained.network.modules():
        if isinstance(module, HeadMixing):
            module.register_forward_pre_hook(lambda _, inputs: unmixed.append(inputs[0]))
    with torch.no_grad(), attention_maps(trained.network.eval()) as maps:
        trained.network(images)
    return maps, unmixed


def spread(dataset: torch.utils.data.Dataset) -> torch.Tensor:
    """Return images from all over a data set, which is sorted by class."""
    step = max(1, len(dataset) // NUM_IMAGES)
    return torch.stack([dataset[place][0] for place in range(0, len(dataset), step)])


if __name__ == "__main__":
    main(sys.argv[1:])
