"""What networks find in validation images, side by side: pairs with verbs, and where the query that found one looks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from dropkey.data.paired_images import NO_OBJECT, PairSource
from dropkey.pages.page import html_page, text
from dropkey.runs.prepared import Prepared
from dropkey.tasks.detection.families import corners
from dropkey.tasks.interaction.drawn_pairs import DrawnPair, drawn_boxes, drawn_heat, drawn_pairs, svg_over
from dropkey.tasks.interaction.found_pairs import FoundPairs
from dropkey.tasks.interaction.interactions import Interactions, best_interactions
from dropkey.tasks.interaction.look import Look, found_and_maps
from dropkey.tasks.interaction.module import Interaction

__all__ = ["interaction_page"]

_IMAGES = 6
_PAIRS = 4  # drawn in an image
_SURE = 0.2


def interaction_page(trained: Mapping[str, Prepared], num_images: int = _IMAGES) -> str:
    """Return a page of the first validation images that have a pair.

    Args:
        trained: networks on the same data by their names; the page shows them side by side.
        num_images: most images.
    """
    first = next(iter(trained.values()))
    assert isinstance(first.module, Interaction)
    source = first.module.source
    chosen = [index for index in range(len(source.val.sizes)) if len(source.val.pairs(index))][:num_images]
    body = [f"<h1>Who does what with what: {text(source.name)}</h1>", f'<p class="soft">{_LEGEND}</p>']
    for index in chosen:
        image = source.val.image(index)
        figures = [
            _figure("truth", svg_over(image, _truth(source, index, _unit(image)), "truth"), _said(source, index))
        ]
        for name, prepared in trained.items():
            figures += _of_network(name, prepared, source, index, image)
        body.append(f"<h2>{text(source.val.file_names[index])}</h2>")
        body.append(f'<div class="pictures">{"".join(figures)}</div>')
    return html_page(f"Interactions in {source.name}", body)


_LEGEND = (
    "Blue boxes are those who do something, orange ones what they do it with, a red line joins the two. Beside each "
    "result, where the query that found the object of the surest pair looks in the last layer of the decoder: over the "
    "image, or, where cross-attention has no keys, at the boxes of the other queries."
)


@torch.no_grad()
def _of_network(name: str, prepared: Prepared, source: PairSource, index: int, image: Image.Image) -> list[str]:
    network = prepared.network.eval()
    device = next(network.parameters()).device
    batch = prepared.data.collate([prepared.data.clean_dataset("val", [index])[0]])
    images = {key: batch[key].to(device) for key in ("pixel_values", "pixel_mask") if key in batch}
    found, look = found_and_maps(network, images)
    best = best_interactions(found, source.possible, batch["indices"], source.val.sizes)
    unit = _unit(image)
    pairs = _grouped(best, source)
    drawn = svg_over(image, drawn_pairs([pair for pair, _ in pairs], unit), f"pairs of {name}")
    figures = [_figure(name, drawn, "; ".join(words for _, words in pairs) or f"nothing above {_SURE}")]
    if look is not None and len(best.scores):
        query = int(best.queries[0, 1])
        over = svg_over(image, _looking(look, query, found, image, unit), f"attention of {name}")
        figures.append(_figure(f"{name}: attention", over, f"query {query}, {look.site}"))
    return figures


def _looking(look: Look, query: int, found: FoundPairs, image: Image.Image, unit: float) -> list[str]:
    weights = look.weights[query]
    if look.grid is not None:
        return [drawn_heat(weights.reshape(look.grid), image.size)]
    boxes = _boxes_of_queries(found, image)
    known = sorted(boxes)
    return drawn_boxes([boxes[number] for number in known], weights[known], unit)


def _boxes_of_queries(found: FoundPairs, image: Image.Image) -> dict[int, Any]:
    scale = np.array([*image.size, *image.size])
    result: dict[int, Any] = {}
    for column, boxes in ((1, found.object_boxes), (0, found.subject_boxes)):
        for query, box in zip(found.queries[0, :, column].tolist(), corners(boxes[0]).cpu().numpy(), strict=True):
            result.setdefault(query, box * scale)
    return result


def _grouped(best: Interactions, source: PairSource) -> list[tuple[DrawnPair, str]]:
    """Return the surest pairs, each with the surest class of its object and its verbs in words."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(best.scores >= _SURE):
        rows.setdefault(tuple(best.queries[row]), []).append(int(row))
    result = []
    for found in list(rows.values())[:_PAIRS]:
        lead = found[0]
        group = [row for row in found if best.objects[row] == best.objects[lead]]
        there = best.object_boxes[lead].any()
        verbs = ", ".join(f"{source.verbs[best.verbs[row]]} {best.scores[row]:.2f}" for row in group)
        name = source.classes[best.objects[lead]] if there else "nothing to be seen"
        pair = DrawnPair(best.subjects[lead], best.object_boxes[lead] if there else None, label=name if there else "")
        result.append((pair, f"{source.classes[source.subject]} → {name}: {verbs}"))
    return result


def _truth(source: PairSource, index: int, unit: float) -> list[str]:
    boxes, pairs = source.val.boxes(index), source.val.pairs(index)
    drawn = [
        DrawnPair(
            boxes.xyxy[subject],
            None if other == NO_OBJECT else boxes.xyxy[other],
            True,
            "" if other == NO_OBJECT else source.classes[boxes.labels[other]],
        )
        for subject, other in zip(pairs.subjects, pairs.objects, strict=True)
    ]
    return drawn_pairs(drawn, unit)


def _said(source: PairSource, index: int) -> str:
    boxes, pairs = source.val.boxes(index), source.val.pairs(index)
    parts = []
    for other, verbs in zip(pairs.objects, pairs.verbs, strict=True):
        name = "nothing to be seen" if other == NO_OBJECT else source.classes[boxes.labels[other]]
        words = ", ".join(source.verbs[int(verb)] for verb in np.flatnonzero(verbs))
        parts.append(f"{source.classes[source.subject]} → {name}: {words}")
    return "; ".join(parts)


def _unit(image: Image.Image) -> float:
    return max(image.size) / 320


def _figure(title: str, svg: str, caption: str) -> str:
    head = f"<h3>{text(title)}</h3>"
    said = f'<figcaption style="overflow-wrap: anywhere">{text(caption)}</figcaption>'
    return f'<figure class="picture">{head}{svg}{said}</figure>'
