"""What a subcommand's NAME may be: the folder of a run, or a model of a library."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

    from dropkey.data.batches import RunData
    from dropkey.runs.run_folder import RunFolder

__all__ = ["NAME_HELP", "first_images", "run_folder_of"]

NAME_HELP = (
    "model of timm, torchvision, transformers (vit, ViTModel) or torch.nn (nn.Transformer), with the library in front "
    "to choose one (torchvision:vit_b_16); folder with transformers' config.json; model on the hub; folder of a run"
)


def run_folder_of(name: str) -> "RunFolder | None":
    """Return the folder of the run that a name stands for, or None if it is the name of a model.

    Raises:
        RunError: a folder that holds neither.
    """
    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():
        return None
    from dropkey.runs.run_folder import RunFolder

    run_folder = RunFolder(folder)
    if not run_folder.holds_a_run:
        raise RunError(
            f"{name} is neither a run folder nor a model of transformers: it holds no config.yaml and no config.json"
        )
    return run_folder


def first_images(data: "RunData", count: int) -> "Tensor":
    """Return the first validation images of a run, (count, C, height, width), as its model takes them."""
    import torch

    images: Any = data.clean_dataset("val", range(min(count, data.sizes["val"])))
    return torch.stack([images[place][0] for place in range(len(images))])
