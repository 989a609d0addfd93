"""What a data set says of one image, in one form for all data sets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Record(NamedTuple):
    """An image with its ground truth, both as published: nothing is resized.

    Classes are positions in the names of the source. Boxes are `(first row, first column, row
    after the last, column after the last)` in pixels.

    Attributes:
        id: what the data set calls the image.
        image: uint8 `(H, W, 3)`, upright.
        labels: int `(k,)`, the classes that the image holds, ascending, each once.
        boxes: int `(n, 4)`, of all classes.
        box_labels: int `(n,)`, the class of each box.
        difficult: bool `(n,)`, which boxes the data set flags as difficult.
        masks: bool `(k, H, W)`, the pixels of each of `labels`, or None where there is no
            segmentation.
        void: bool `(H, W)`, the pixels of no known class, or None where there are none.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    box_labels: np.ndarray
    difficult: np.ndarray
    masks: np.ndarray | None = None
    void: np.ndarray | None = None


def record(
    id: str,
    image: Any,
    *,
    labels: Sequence[int] | np.ndarray = (),
    boxes: Any = (),
    box_labels: Sequence[int] | np.ndarray = (),
    difficult: Any = None,
    masks: np.ndarray | None = None,
    void: np.ndarray | None = None,
) -> Record:
    """Make a record of what is known.

    Args:
        id: what the data set calls the image.
        image: uint8 `(H, W, 3)`, or `(H, W)` or `(H, W, 1)` in gray.
        labels: classes of the whole image; those of its boxes are added.
        boxes: as in `Record`. What lies outside the image is cut off.
        box_labels: the class of each box.
        difficult: a flag for each box; by default none is.
        masks: as in `Record`, for `labels` in ascending order.
        void: as in `Record`.

    Raises:
        ValueError: if the image is no uint8 image, a box is empty or outside the image, or the
            parts do not fit each other. The message names the record.

    Example:
        >>> r = record("cat", np.zeros((4, 6), np.uint8), boxes=[[1, 2, 9, 4]], box_labels=[7])
        >>> r.image.shape, r.labels.tolist(), r.boxes.tolist(), r.difficult.tolist()
        ((4, 6, 3), [7], [[1, 2, 4, 4]], [False])
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            f"the image of {id!r} is {image.dtype} of shape {image.shape}, but a record has uint8 "
            "of shape (H, W, 3)"
        )
    size = image.shape[:2]
    found = np.asarray(boxes, np.int64).reshape(-1, 4)
    clipped = np.clip(found, 0, np.tile(size, 2))
    for box, inside in zip(found, clipped, strict=True):
        if (inside[:2] >= inside[2:]).any():
            raise ValueError(
                f"{id!r} has a box {box.tolist()} (first row, first column, end row, end column) "
                f"without a pixel of its image of {size[0]} x {size[1]}"
            )
    of_boxes = np.asarray(box_labels, np.int64)
    flags = np.zeros(len(found), bool) if difficult is None else np.asarray(difficult, bool)
    every = np.unique(np.concatenate([np.asarray(labels, np.int64), of_boxes]))
    shapes = {
        "box_labels": (of_boxes.shape, (len(found),)),
        "difficult": (flags.shape, (len(found),)),
        "masks": (None if masks is None else masks.shape, (len(every), *size)),
        "void": (None if void is None else void.shape, size),
    }
    for name, (shape, wanted) in shapes.items():
        if shape is not None and shape != wanted:
            raise ValueError(f"`{name}` of {id!r} has shape {shape}, but {wanted} is needed")
    rgb = np.broadcast_to(image, (*size, 3))
    return Record(id, rgb, every, clipped, of_boxes, flags, masks, void)


def class_mask(given: Record, label: int) -> np.ndarray:
    """Return where a class is, bool `(H, W)`: its segmentation, else the union of its boxes.

    Example:
        >>> r = record("cat", np.zeros((2, 3), np.uint8), boxes=[[0, 1, 2, 2]], box_labels=[7])
        >>> class_mask(r, 7).astype(int).tolist()
        [[0, 1, 0], [0, 1, 0]]
    """
    if given.masks is not None:
        return np.asarray(given.masks[given.labels == label].any(0))
    mask = np.zeros(given.image.shape[:2], bool)
    for r0, c0, r1, c1 in given.boxes[given.box_labels == label]:
        mask[r0:r1, c0:c1] = True
    return mask
