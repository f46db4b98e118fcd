"""What hiding patches costs a trained classifier."""

from collections.abc import Mapping
from dataclasses import dataclass

from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.classification.measuring import occlusion_curve
from dropkey.tasks.classification.module import Classification

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """Accuracy with a share of the patches hidden, on some of the validation images."""

    share: float = 0.5

    @property
    def name(self) -> str:
        return f"occlusion-{self.share:g}"

    @property
    def measures(self) -> tuple[Measure]:
        return (Measure(f"accuracy_with_{self.share:.0%}_hidden".replace("%", "_percent"), "fraction", "higher"),)

    def read(self, trained: Prepared, folder: RunFolder) -> Mapping[str, float]:
        assert isinstance(trained.module, Classification)
        batches, classes = trained.data.val_dataloader()[0], len(trained.module.classes)
        patch = getattr(getattr(trained.network, "patch_embed", None), "patch_size", (4, 4))[0]
        curve = occlusion_curve(trained.network, batches, classes, [self.share], patch, seed=0)
        return {self.measures[0].name: curve[f"{self.share:g}"]}
