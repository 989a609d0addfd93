"""The objects of an image as PASCAL VOC, ImageNet and COCO write them down."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Objects(NamedTuple):
    """The objects of an annotation, in its order.

    Attributes:
        size: height and width of the image.
        labels: the class of each object, by name.
        boxes: int `(n, 4)`, as in `Record`.
        difficult: bool `(n,)`, which ones PASCAL flags as difficult.
    """

    size: tuple[int, int]
    labels: tuple[str, ...]
    boxes: np.ndarray
    difficult: np.ndarray


def read_objects(xml: str | bytes | Path) -> Objects:
    """Read an annotation, or the file of it.

    There rows and columns start at 1 and the last ones are included.

    Raises:
        ValueError: if the text is not such an annotation.
    """
    labels, boxes, difficult = [], [], []
    try:
        root = ElementTree.fromstring(xml.read_bytes() if isinstance(xml, Path) else xml)
        size = (_number(root, "size/height"), _number(root, "size/width"))
        for item in root.iter("object"):
            x0, y0, x1, y1 = (
                _number(item, f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")
            )
            labels.append(item.findtext("name", "").strip())
            boxes.append((y0 - 1, x0 - 1, y1, x1))
            difficult.append(item.findtext("difficult", "0").strip() == "1")
    except (ElementTree.ParseError, ValueError) as error:
        name = f"{xml} is " if isinstance(xml, Path) else ""
        raise ValueError(f"{name}not an annotation of PASCAL VOC: {error}") from None
    return Objects(
        size, tuple(labels), np.array(boxes, int).reshape(-1, 4), np.array(difficult, bool)
    )


def coco_boxes(annotations: Sequence[Mapping[str, Any]]) -> dict[int, np.ndarray]:
    """Return boxes `(n, 4)`, as in `Object`, for each category of an image's COCO annotations.

    Pixels of which any part lies in a box belong to it.

    Args:
        annotations: of one image, as in the JSON file.

    Returns:
        From the number of a category to its boxes.

    Raises:
        ValueError: if a width or height is negative, or a number not finite.

    Example:
        >>> coco_boxes([{"category_id": 18, "bbox": [10.5, 20.0, 5.0, 4.0]}])[18].tolist()
        [[20, 10, 24, 16]]
    """
    found: dict[int, list[tuple[int, ...]]] = {}
    for a in annotations:
        x, y, width, height = a["bbox"]
        if not (np.isfinite(a["bbox"]).all() and width >= 0 and height >= 0):
            raise ValueError(
                f"the box {list(a['bbox'])} of category {a['category_id']} is none: expected a "
                "first column and row, a width and a height, as COCO has it"
            )
        low, high = np.floor((y, x)), np.ceil((y + height, x + width))
        found.setdefault(a["category_id"], []).append((*low.astype(int), *high.astype(int)))
    return {category: np.array(boxes) for category, boxes in found.items()}


def coco_masks(
    annotations: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> dict[int, np.ndarray]:
    """Return masks, bool `(H, W)`, for each category of an image's COCO annotations.

    The union of all polygons and run-length codes of a category, crowds included, as TorchRay's
    pointing game has it. Needs `pycocotools`.

    Args:
        annotations: of one image, as in the JSON file.
        size: the image's height and width.

    Returns:
        From the number of a category to its mask.

    Raises:
        ModuleNotFoundError: without `pycocotools`.
        ValueError: if a segmentation is neither polygons nor a run-length code of that size.
    """
    try:
        from pycocotools import mask  # type: ignore[reportMissingModuleSource]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "masks of COCO are read by pycocotools, which is not installed: pip install "
            "pycocotools",
            name="pycocotools",
        ) from None
    found: dict[int, np.ndarray] = {}
    for a in annotations:
        category, code = a["category_id"], a["segmentation"]
        _check_segmentation(category, code, size)
        if isinstance(code, list) or isinstance(code["counts"], list):
            code = mask.frPyObjects(code, *size)
        try:
            pixels = mask.decode(mask.merge(code) if isinstance(code, list) else code).astype(bool)
        except ValueError as error:
            raise ValueError(f"the run-length code of category {category}: {error}") from None
        found[category] = found.get(category, np.zeros(size, bool)) | pixels
    return found


def _check_segmentation(category: int, code: Any, size: tuple[int, int]) -> None:
    """Raise `ValueError` unless a segmentation is one that pycocotools reads as it is meant."""
    if isinstance(code, list):
        if code and all(_is_polygon(points) for points in code):
            return
        wrong = f"{len(code)} polygons, one of fewer than three points" if code else "no polygons"
    elif isinstance(code, Mapping) and {"counts", "size"} <= code.keys():
        counts = code["counts"]
        if tuple(code["size"]) != tuple(size):
            wrong = f"a run-length code of size {list(code['size'])}"
        elif isinstance(counts, list) and sum(counts) != size[0] * size[1]:
            wrong = f"a run-length code of {sum(counts)} pixels"
        else:
            return
    else:
        wrong = f"a {type(code).__name__}"
    raise ValueError(
        f"the segmentation of an object of category {category} is {wrong}; expected polygons "
        f"[[x1, y1, x2, y2, x3, y3, ...], ...] or a run-length code of size {list(size)}"
    )


def _is_polygon(points: Any) -> bool:
    """Whether there are three points or more, in pairs: of two, pycocotools makes a box."""
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0


def _number(element: ElementTree.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"there is no {path}")
    return round(float(text))
