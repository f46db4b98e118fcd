"""What a run says of its images at its start: how many, what was left out, and what becomes of them."""

import statistics

from dropkey.data.augmentation import Augmentation, ImageFormat, placing_of
from dropkey.data.source import ImageSource, LabeledImages

__all__ = ["images_in_words"]

_SIZES_READ = 200  # of each split, spread evenly
_MUCH_LARGER = 4  # times the model's input, from where on most of what an image shows is lost


def images_in_words(source: ImageSource, image_format: ImageFormat, augmentation: Augmentation) -> list[str]:
    """Return one line each: images, what was left out, sizes, augmentation; advice if there is any."""
    counts = f"{len(source.train):,} for training, {len(source.val):,} for validation"
    return [
        f"images: {counts}, of {len(source.classes)} classes ({source.name})",
        *([f"left out: {source.left_out}"] if source.left_out else []),
        *_sizes_in_words(source, image_format.img_size),
        f"augmentation: {placing_of(image_format.img_size, augmentation)}, {augmentation}",
    ]


def _sizes_in_words(source: ImageSource, side: int) -> list[str]:
    seen = [*_sizes(source.train), *_sizes(source.val)]
    if not seen:
        return [f"sizes: unknown, brought to {side} x {side} pixels"]
    small, large = min(seen, key=_area), max(seen, key=_area)
    span = f"{small[0]} x {small[1]}" + ("" if small == large else f" to {large[0]} x {large[1]}")
    changed = "" if small == large == (side, side) else f", brought to {side} x {side} (width x height)"
    lines = [f"sizes: {span} pixels{changed}"]
    usual = statistics.median(min(size) for size in seen)
    if usual >= _MUCH_LARGER * side:
        lines.append(
            f"note: half of the images have {usual:.0f} pixels a side or more, and the model sees {side}: most of what "
            "they show is lost; --model vit_tiny_patch16_224, for example, sees more"
        )
    return lines


def _sizes(images: LabeledImages) -> list[tuple[int, int]]:
    step = max(1, len(images) // _SIZES_READ)
    found = (images.size(index) for index in range(0, len(images), step))
    return [size for size in found if size is not None]


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
