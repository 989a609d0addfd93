"""The objects of an image as the pointing game counts them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import is_concrete
from jaxattr.data.objects import read_objects
from jaxattr.data.records import Record


class Object(NamedTuple):
    """All that an image has of one class.

    Attributes:
        label: the class.
        boxes: int `(n, 4)`: first row, first column, and the row and column after the last.
        counts: whether it is an example of its class: not all of its boxes are flagged difficult
            by PASCAL.
        difficult: whether it belongs to the difficult subset of the pointing game: it is an
            example, its boxes cover less than a quarter of the image, and the image has an
            example of another class.
    """

    label: str
    boxes: np.ndarray
    counts: bool
    difficult: bool


class Annotation(NamedTuple):
    """The objects of an image of height and width `size`."""

    size: tuple[int, int]
    objects: tuple[Object, ...]


def voc_annotation(xml: str | bytes | Path) -> Annotation:
    """Read an annotation of PASCAL VOC, or of ImageNet, which has the same format.

    Boxes that PASCAL flags as difficult belong to the object. In the files rows and columns start
    at 1 and the last ones are included.

    Args:
        xml: the content of the file, or its path.

    Returns:
        The image's objects, one for each class, in the order of the file.

    Raises:
        ValueError: if the text is not such an annotation, or a box ends before it starts or lies
            outside the image.

    Example:
        >>> box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
        >>> cat = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
        >>> size = "<size><width>40</width><height>20</height></size>"
        >>> found = voc_annotation(f"<annotation>{size}{cat}</annotation>")
        >>> found.size, found.objects[0].label, found.objects[0].boxes.tolist()
        ((20, 40), 'cat', [[0, 0, 20, 30]])
    """
    found = read_objects(xml)
    return _annotation(found.size, np.array(found.labels, str), found.boxes, found.difficult)


def record_annotation(record: Record, classes: Sequence[str]) -> Annotation:
    """Return the objects of a record of `jaxattr.data`.

    Args:
        record: with boxes.
        classes: the names of its source's classes.

    Returns:
        As `voc_annotation` does for the same boxes and flags.
    """
    names = np.array(classes, str)[record.box_labels]
    return _annotation(record.image.shape[:2], names, record.boxes, record.difficult)


def _annotation(
    size: tuple[int, ...], labels: np.ndarray, boxes: np.ndarray, difficult: np.ndarray
) -> Annotation:
    every = dict.fromkeys(labels.tolist())
    return annotation(
        (size[0], size[1]),
        {label: boxes[labels == label] for label in every},
        ignored=set(every) - set(labels[~difficult].tolist()),
    )


def annotation(
    size: tuple[int, int], boxes: Mapping[str, np.ndarray], *, ignored: set[str] | None = None
) -> Annotation:
    """Apply the rules of the pointing game to the boxes of an image.

    Args:
        size: its height and width.
        boxes: from classes to boxes `(n, 4)`, as in `Object`.
        ignored: classes that are no examples.

    Returns:
        The same, with the examples and the difficult ones of them marked. On the test images of
        VOC2007 that is 7,013 and 2,230 examples, the published numbers.

    Raises:
        ValueError: if a box is empty or lies outside the image.

    Example:
        >>> boxes = {"cat": np.array([[0, 0, 90, 90]]), "dog": np.array([[0, 0, 9, 9]])}
        >>> [(o.label, o.difficult) for o in annotation((100, 100), boxes).objects]
        [('cat', False), ('dog', True)]

    Reference:
        Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016, section 4.1.
    """
    boxes = {label: np.asarray(b) for label, b in boxes.items()}
    for label, b in boxes.items():
        _check_boxes(label, b, size)
    examples = boxes.keys() - (ignored or set())

    def difficult(label: str) -> bool:
        small = 4 * _area(boxes[label]) < size[0] * size[1]
        return label in examples and small and len(examples) > 1

    return Annotation(
        size,
        tuple(Object(k, b, k in examples, difficult(k)) for k, b in boxes.items()),
    )


def box_masks(boxes: Any, size: tuple[int, int]) -> Any:
    """Return the union of boxes as a mask.

    Args:
        boxes: `(..., n, 4)`: first row, first column, and the row and column after the last.
            Empty boxes such as zeros stand for none.
        size: height and width of the mask.

    Returns:
        Bool `(..., H, W)`, of jax for boxes of jax, else of numpy.

    Raises:
        ValueError: if the shape is another, or a known box ends before it starts.

    Example:
        >>> import numpy as np
        >>> box_masks(np.array([[0, 1, 2, 3], [0, 0, 0, 0]]), (2, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0]]
    """
    xp = jnp if isinstance(boxes, jax.Array) else np
    boxes = xp.asarray(boxes)
    if boxes.ndim < 2 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes have shape {boxes.shape}; expected (..., n, 4)")
    if is_concrete(boxes) and not (sound := np.asarray(boxes[..., :2] <= boxes[..., 2:])).all():
        wrong = np.asarray(boxes)[~sound.all(-1)][0]
        raise ValueError(f"the box {wrong.tolist()} ends before it starts; expected {_BOX}")
    rows, columns = (
        (xp.arange(length) >= boxes[..., axis, None])
        & (xp.arange(length) < boxes[..., axis + 2, None])
        for axis, length in enumerate(size)
    )
    # the number of boxes at each pixel as a matrix product, which needs no memory for each box
    inside = rows.astype(np.float32).swapaxes(-1, -2) @ columns.astype(np.float32)
    return inside > 0


_BOX = "[first row, first column, row after the last, column after the last]"


def _check_boxes(label: str, boxes: np.ndarray, size: tuple[int, int]) -> None:
    """Raise `ValueError` unless each box has a pixel of the image."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"the boxes of {label!r} have shape {boxes.shape}; expected (n, 4)")
    first, end = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], size)
    if not (sound := (first < end).all(1)).all():
        raise ValueError(
            f"the box {boxes[~sound][0].tolist()} of {label!r} has no pixel of the image of "
            f"{size[0]} rows and {size[1]} columns; expected {_BOX}"
        )


def _area(boxes: np.ndarray) -> int:
    """Return the area of a union of boxes, counted on the grid of their edges."""
    rows, columns = (np.unique(boxes[:, [axis, axis + 2]]) for axis in (0, 1))
    first, end = boxes[:, None, :2], boxes[:, None, 2:]
    high, wide = (
        (first[..., axis] <= at[:-1]) & (at[:-1] < end[..., axis])
        for axis, at in enumerate((rows, columns))
    )
    covered = (high[:, :, None] & wide[:, None, :]).any(0)
    return int(np.diff(rows) @ covered @ np.diff(columns))
