"""A page about a detector: what it measures, precision over recall, and the images where it is worst and best."""

from collections.abc import Mapping, Sequence
from typing import Any

from dropkey.data.boxed_images import BoxedImages
from dropkey.pages.chart import Line, line_chart
from dropkey.pages.page import figure, html_page, text
from dropkey.pages.picture import DrawnBox, picture_with_boxes
from dropkey.tasks.detection.detections import Detections
from dropkey.tasks.detection.matching import Matched, best_threshold, match

__all__ = ["detection_page"]

_SHOWN = 6  # images of a kind
_TRUE, _RIGHT, _WRONG = 3, 2, 1  # colors of the page


def detection_page(
    title: str, result: Mapping[str, Any], found: Sequence[Detections], images: BoxedImages, classes: Sequence[str]
) -> str:
    """Return the page.

    Args:
        title: what was evaluated.
        result: what ``dropkey evaluate`` has measured.
        found: detections in the validation images.
        images: the validation images.
        classes: names of the classes.
    """
    matched = match(found, {image.index: images.boxes(image.index) for image in found})
    threshold = best_threshold(matched)
    ranked = sorted(matched, key=lambda image: (-image.errors(threshold), image.found.index))
    full = [image for image in ranked if len(image.truth)] or ranked
    best = sorted(full, key=lambda image: (image.errors(threshold), -len(image.truth)))[:_SHOWN]
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{result["images"]} images, {result["boxes"]} boxes</p>',
        f"<h2>Average precision</h2>{_means(result)}",
        f'<div class="charts">{_curve(result["precision_over_recall"])}</div>',
        f"<h2>Classes</h2>{_classes(result['classes'])}",
        f'<h2>Images</h2><p class="on-pictures">{_key(threshold)}</p>',
        f"<h3>Most mistakes</h3>{_pictures(ranked[:_SHOWN], threshold, images, classes)}",
        f"<h3>Fewest mistakes</h3>{_pictures(best, threshold, images, classes)}",
    ]
    return html_page(title, body)


def _pictures(chosen: Sequence[Matched], threshold: float, images: BoxedImages, classes: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(_picture(image, threshold, images, classes) for image in chosen)}</div>'


def _picture(image: Matched, threshold: float, images: BoxedImages, classes: Sequence[str]) -> str:
    found, index = image.found, image.found.index
    boxes = [DrawnBox(xyxy, _TRUE, dashed=True) for xyxy in image.truth.xyxy]
    for score, label, xyxy, right in zip(found.scores, found.labels, found.xyxy, image.right, strict=True):
        if score >= threshold:
            boxes.append(DrawnBox(xyxy, _RIGHT if right else _WRONG, f"{classes[label]} {score:.2f}"))
    mistakes = image.errors(threshold)
    caption = f"image {images.image_ids[index]}: {len(image.truth)} objects, {mistakes} mistakes"
    return picture_with_boxes(images.image(index), boxes, caption)


def _key(threshold: float) -> str:
    keys = [(_TRUE, "true box, dashed"), (_RIGHT, "right"), (_WRONG, "wrong class, place or second time")]
    spans = [f'<span class="c{color}"><span class="key"></span></span>{words}' for color, words in keys]
    shown = f"Detections with a score of {threshold:.2f} or more, where F1 is best at IoU 0.50."
    return f"{'&emsp;'.join(spans)}<br><span class='soft'>{shown}</span>"


def _curve(precision: Sequence[float]) -> str:
    if not precision:
        return ""
    line = Line("IoU 0.50", _RIGHT, precision, precision, precision)
    title = "Precision over recall in percent, IoU 0.50, mean over classes"
    return figure(title, line_chart([line], "recall (%)", 0, title=title, from_zero=True))


def _means(result: Mapping[str, Any]) -> str:
    names = ["mAP", "AP50", "AP75", "mAP_small", "mAP_medium", "mAP_large"]
    return _table([[name.replace("_", ", ") for name in names], [_number(result[name]) for name in names]])


def _classes(classes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [[name, *(_number(row[key]) for key in ("mAP", "AP50", "AP75"))] for name, row in classes.items()]
    return _table([["class", "mAP", "AP50", "AP75"], *rows])


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    lines = ["<tr>" + "".join(f"<th>{text(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in others]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
