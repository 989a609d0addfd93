"""The objects of an image as PASCAL VOC, ImageNet and COCO write them down."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
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


def read_objects(xml: str | bytes) -> Objects:
    """Read an annotation. In the files rows and columns start at 1 and the last ones are included.

    Raises:
        ValueError: if the text is not such an annotation.
    """
    labels, boxes, difficult = [], [], []
    try:
        root = ElementTree.fromstring(xml)
        size = (_number(root, "size/height"), _number(root, "size/width"))
        for item in root.iter("object"):
            x0, y0, x1, y1 = (
                _number(item, f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")
            )
            labels.append(item.findtext("name", "").strip())
            boxes.append((y0 - 1, x0 - 1, y1, x1))
            difficult.append(item.findtext("difficult", "0").strip() == "1")
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"not an annotation of PASCAL VOC: {error}") from None
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

    Example:
        >>> coco_boxes([{"category_id": 18, "bbox": [10.5, 20.0, 5.0, 4.0]}])[18].tolist()
        [[20, 10, 24, 16]]
    """
    found: dict[int, list[tuple[int, ...]]] = {}
    for a in annotations:
        x, y, width, height = a["bbox"]
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
        code: Any = a["segmentation"]
        if isinstance(code, list) or isinstance(code["counts"], list):
            code = mask.frPyObjects(code, *size)
        pixels = mask.decode(mask.merge(code) if isinstance(code, list) else code).astype(bool)
        category = a["category_id"]
        found[category] = found.get(category, np.zeros(size, bool)) | pixels
    return found


def _number(element: ElementTree.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"there is no {path}")
    return round(float(text))
