"""Image files whose boxes are known."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dropkey.data.boxed_images import Boxes
from dropkey.data.picture import read_image
from dropkey.errors import DataError

__all__ = ["BoxedFiles", "check_boxes_exist"]


class BoxedFiles:
    """Image files and the boxes of each, in one order.

    Args:
        files: the images.
        sizes: (rows, cols) of each, as its boxes take it.
        boxes: the boxes of each.
        image_ids: what each is called in files of predictions.
    """

    def __init__(
        self,
        files: Sequence[Path],
        sizes: Sequence[tuple[int, int]],
        boxes: Sequence[Boxes],
        image_ids: Sequence[int | str],
    ) -> None:
        self.files = files
        self.sizes = sizes
        self.image_ids = image_ids
        self._boxes = boxes

    def image(self, index: int) -> Image.Image:
        """Return an image as RGB, or raise a DataError that names the file.

        A photograph that was stored on its side is turned upright, unless its boxes are for the sides as stored.
        """
        image = read_image(self.files[index])
        rows, cols = self.sizes[index]
        if image.size == (rows, cols):
            image = read_image(self.files[index], upright=False)
        if image.size != (cols, rows):
            raise DataError(
                f"{self.files[index]} has {image.width} x {image.height} pixels, and its boxes are for {cols} x "
                f"{rows}: put back the image that was annotated"
            )
        return image

    def boxes(self, index: int) -> Boxes:
        """Return the boxes of an image."""
        return self._boxes[index]


def check_boxes_exist(boxes: Sequence[Boxes], where: str) -> None:
    """Raise a DataError if no image of a split has a box to find."""
    if all(one.is_crowd.all() for one in boxes):
        raise DataError(f"{where} has no box in {len(boxes)} images: there is nothing to learn or to measure")
