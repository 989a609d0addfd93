"""What stands beside a checkpoint of timm or Hugging Face: its classes and preprocessing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from jaxattr.models.preprocess import Preprocess

_WARPED = 384  # from here on transformers resizes ConvNeXt's images to squares, and crops nothing


class Beside(NamedTuple):
    """What is told beside a checkpoint, None where it is not.

    Attributes:
        classes: The names of the classes, from `config.json`.
        preprocess: From `config.json` as timm writes it, or from `preprocessor_config.json`.
    """

    classes: tuple[str, ...] | None
    preprocess: Preprocess | None


def beside(path: str | PathLike[str]) -> Beside:
    """Read what stands beside a checkpoint, given by its file or folder.

    Raises:
        ValueError: If one of the files is no JSON or lacks what belongs to it.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    config, processor = (_read(folder / f"{n}.json") for n in ("config", "preprocessor_config"))
    if "pretrained_cfg" in config:
        preprocess = _read_by(_timm, config["pretrained_cfg"], folder / "config.json")
    elif "image_mean" in processor:
        preprocess = _read_by(_transformers, processor, folder / "preprocessor_config.json")
    else:
        preprocess = None
    return Beside(_classes(config), preprocess)


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _read_by(read: Any, content: Any, file: Path) -> Preprocess:
    try:
        return read(content)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} does not say how images are prepared ({what})") from error


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes in order; transformers writes `LABEL_3` where there are no names."""
    labels = config.get("id2label")
    if isinstance(labels, dict) and all(k.isdigit() for k in labels):
        return tuple(str(labels[k]) for k in sorted(labels, key=int))
    names = config.get("label_names")
    return tuple(map(str, names)) if isinstance(names, list) else None


def _timm(config: Mapping[str, Any]) -> Preprocess:
    side = config["input_size"][1]
    return Preprocess(
        resize_size=math.floor(side / config.get("crop_pct", 1)),
        crop_size=side,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resample=Image.Resampling[config.get("interpolation", "bilinear").upper()],
        square=config.get("crop_mode", "center") == "squash",
    )


def _transformers(config: Mapping[str, Any]) -> Preprocess:
    resized, side = _sides(config)
    return Preprocess(
        resize_size=resized,
        crop_size=side,
        mean=tuple(config["image_mean"]),
        std=tuple(config["image_std"]),
        resample=Image.Resampling(config.get("resample", Image.Resampling.BILINEAR)),
        square=resized == side,
    )


def _sides(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return what the image is resized to and cropped to; if it is the same, it is squeezed."""
    size, share = config["size"], config.get("crop_pct")
    if isinstance(size, int):  # as older files have it
        keeps = share is not None or config.get("do_center_crop", False)
        size = {"shortest_edge": size} if keeps else {"height": size, "width": size}
    if "shortest_edge" not in size:
        if size["height"] != size["width"]:
            raise ValueError(f"images of {size['height']} x {size['width']} are not square")
        return size["height"], size["height"]
    shortest = size["shortest_edge"]
    if share is not None:  # ConvNeXt's
        return (shortest if shortest >= _WARPED else int(shortest / share)), shortest
    crop = config.get("crop_size", shortest)
    return shortest, crop["height"] if isinstance(crop, dict) else crop
