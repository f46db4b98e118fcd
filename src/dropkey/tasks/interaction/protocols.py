"""How interactions are measured: as HICO-DET does, or as V-COCO does."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dropkey.data.paired_images import PairedImages, PairSource
from dropkey.tasks.interaction.interactions import Interactions, true_pairs, unpaired_persons
from dropkey.tasks.interaction.metrics import hico_det_ap, vcoco_role_ap
from dropkey.text_table import text_table

__all__ = ["Protocol", "protocol_of", "table"]

_NO_INTERACTION = "no_interaction"


class Protocol(ABC):
    """A way to measure; all numbers are in [0, 1], None where there is no truth."""

    def __init__(self, source: PairSource) -> None:
        self.source = source

    @abstractmethod
    def headline(self, images: PairedImages, indices: Iterable[int], found: Interactions) -> float | None:
        """Return the one number for tables and curves.

        Args:
            images: a split.
            indices: of the images that were looked at.
            found: in these.
        """

    @abstractmethod
    def measure(self, images: PairedImages, indices: Iterable[int], found: Interactions) -> dict[str, Any]:
        """Return everything that is measured, as plain data."""


class HicoDetProtocol(Protocol):
    """Mean average precision over (verb, object)."""

    def __init__(self, source: PairSource) -> None:
        super().__init__(source)
        self.triplets = [(int(verb), int(label)) for verb, label in np.argwhere(source.possible)]
        self.rare = [place for place, triplet in enumerate(self.triplets) if triplet in source.rare]
        self.real = [place for place, (verb, _) in enumerate(self.triplets) if source.verbs[verb] != _NO_INTERACTION]

    def headline(self, images: PairedImages, indices: Iterable[int], found: Interactions) -> float | None:
        return hico_det_ap(true_pairs(images, indices), found.pairs(), self.triplets).full

    def measure(self, images: PairedImages, indices: Iterable[int], found: Interactions) -> dict[str, Any]:
        truth, guesses = true_pairs(images, indices), found.pairs()
        result: dict[str, Any] = {"pairs": len(truth), "settings": {}}
        for setting in ("default", "known_object"):
            for points in ("11-point", "all-point"):
                ap = hico_det_ap(
                    truth,
                    guesses,
                    self.triplets,
                    self.rare,
                    setting=setting,
                    interpolation=points,
                )
                means = {"full": ap.full}
                if self.rare:
                    means |= {"rare": ap.rare, "non_rare": ap.non_rare}
                if len(self.real) < len(self.triplets):
                    means["without_no_interaction"] = _mean(ap.by_triplet[self.real])
                result["settings"][f"{setting}, {points}"] = means
                if (setting, points) == ("default", "11-point"):
                    result["triplets"] = self._by_triplet(ap.by_triplet, ap.num_truth)
        return {"mAP": result["settings"]["default, 11-point"]["full"], **result}

    def _by_triplet(self, values: Any, counts: Any) -> dict[str, Any]:
        names = [f"{self.source.verbs[verb]} {self.source.classes[label]}" for verb, label in self.triplets]
        return {
            name: {"AP": None if np.isnan(value) else float(value), "pairs": int(count)}
            for name, value, count in zip(names, values, counts, strict=True)
            if count
        }


class VcocoProtocol(Protocol):
    """Role average precision in two scenarios."""

    def headline(self, images: PairedImages, indices: Iterable[int], found: Interactions) -> float | None:
        value: float | None = self._measured(images, list(indices), found).scenario_1
        return value

    def measure(self, images: PairedImages, indices: Iterable[int], found: Interactions) -> dict[str, Any]:
        ap = self._measured(images, list(indices), found)
        names = [self.source.verbs[role] for role in self.source.roles]
        roles = {
            name: {"scenario_1": _known(one), "scenario_2": _known(two), "pairs": int(count)}
            for name, one, two, count in zip(names, ap.by_role_1, ap.by_role_2, ap.num_truth, strict=True)
        }
        return {
            "mAP": ap.scenario_1,
            "pairs": int(ap.num_truth.sum()),
            "scenario_1": ap.scenario_1,
            "scenario_2": ap.scenario_2,
            "roles": roles,
        }

    def _measured(self, images: PairedImages, indices: list[int], found: Interactions) -> Any:
        persons = unpaired_persons(images, indices, self.source.subject)
        return vcoco_role_ap(true_pairs(images, indices), found.pairs(), list(self.source.roles), persons)


def protocol_of(source: PairSource) -> Protocol:
    """Return how a source is measured: by roles if it has some, otherwise by triplets."""
    return VcocoProtocol(source) if len(source.roles) else HicoDetProtocol(source)


def table(result: Mapping[str, Any]) -> str:
    """Return as text what a protocol has measured."""
    return _table_of_roles(result) if "roles" in result else _table_of_settings(result)


def _table_of_settings(result: Mapping[str, Any]) -> str:
    settings = result["settings"]
    names = list(next(iter(settings.values())))
    rows = [["mAP", *(name.replace("_", " ") for name in names)]]
    rows += [
        [words.replace("_", " "), *(_number(values[name]) for name in names)] for words, values in settings.items()
    ]
    return text_table(rows)


def _table_of_roles(result: Mapping[str, Any]) -> str:
    rows = [["role AP", "scenario 1", "scenario 2", "pairs"]]
    values = {"mean": result, **result["roles"]}
    rows += [
        [name.replace("_", " "), _number(row["scenario_1"]), _number(row["scenario_2"]), str(row["pairs"])]
        for name, row in values.items()
    ]
    return text_table(rows)


def _mean(values: Any) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
