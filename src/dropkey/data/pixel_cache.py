"""Decoded images kept in memory, once for all processes that read them."""

import mmap
from typing import Any

import numpy as np

from dropkey.data.boxed_images import BoxedImages

__all__ = ["PixelCache"]


class PixelCache:
    """Images as arrays, decoded once while they fit.

    The memory is anonymous and shared, so processes that are forked later fill it together, and it is taken up only as
    images come in. A copy sent to a process that is not forked begins empty.

    Args:
        images: where they come from.
        megabytes: most memory; images that do not fit are decoded each time.
    """

    def __init__(self, images: BoxedImages, megabytes: float) -> None:
        self.images = images
        self.megabytes = megabytes
        self._allocate()

    def __getitem__(self, index: int) -> Any:
        """Return an image: uint8 (rows, cols, 3)."""
        if self._is_kept(index) and self._filled[index]:
            return self._place(index)
        pixels = np.asarray(self.images.image(index))
        if self._is_kept(index):
            self._place(index)[:] = pixels
            self._filled[index] = 1
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self.images, "megabytes": self.megabytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._allocate()

    def _allocate(self) -> None:
        ends = np.cumsum([3 * rows * cols for rows, cols in self.images.sizes], dtype=np.int64)
        kept = int(np.searchsorted(ends, self.megabytes * 2**20, side="right"))
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:kept]])
        self._memory = mmap.mmap(-1, int(self._starts[-1])) if kept else None
        self._filled: Any = mmap.mmap(-1, kept) if kept else b""

    def _is_kept(self, index: int) -> bool:
        return index < len(self._filled)

    def _place(self, index: int) -> Any:
        assert self._memory is not None
        rows, cols = self.images.sizes[index]
        flat = np.frombuffer(self._memory, np.uint8, 3 * rows * cols, int(self._starts[index]))
        return flat.reshape(rows, cols, 3)
