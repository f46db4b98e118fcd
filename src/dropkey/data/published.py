"""Data sets that torchvision can download, or read where they were put."""

import contextlib
import io
from pathlib import Path
from typing import Any

from dropkey.errors import DataError

__all__ = ["published"]


def published(dataset: Any, title: str, data_dir: Path, files: str) -> tuple[Any, Any]:
    """Return the training and the validation part of a torchvision data set.

    Args:
        dataset: its class.
        title: what people call it.
        data_dir: where it is, or is downloaded to.
        files: what has to be below ``data_dir``, for the message.

    Raises:
        DataError: it is not there and cannot be downloaded; says what to put where.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return dataset(data_dir, train=True), dataset(data_dir, train=False)
        except Exception:
            pass  # not there, or not whole: a download puts both right
        try:
            return dataset(data_dir, train=True, download=True), dataset(data_dir, train=False, download=True)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{title} is not below {data_dir} and cannot be downloaded ({reason}): put {data_dir / files} there, "
                "or name the folder that holds it by --data-dir"
            ) from None
