"""Data sets of TensorFlow Datasets, without TensorFlow."""

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxattr.data.classes import IMAGENET, SYNSETS
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

REPORTED = {"voc/2007": "test", "coco/2014": "validation"}
"""The split that results are reported on, where it is neither the only nor the usual one."""

IDS = ("image/filename", "file_name", "image/id", "id")


def source(name: str, *, split: str | None = None) -> Source:
    """Open a data set of TensorFlow Datasets in its ArrayRecord form, which is made if missing.

    Its images, classes, boxes (`objects`, `bbox`) and flags are read; parts of ImageNet keep
    ImageNet's numbers of their classes. Boxes, which it keeps as
    shares of the image, become the whole pixels that they stand for.

    Args:
        name: as `tfds.builder` takes it: "imagenet_v2", "voc/2007", "imagenet2012:5.1.0". Files
            lie in the folder that the variable TFDS_DATA_DIR names, else in tfds's own.
        split: as it takes it, slices included: "validation[:100]"; by default the one that
            results are reported on, else `validation`, else `test`.

    Raises:
        ValueError: if there is no such data set or split, or it has no images.
        FileNotFoundError: if files that nobody may distribute are missing. The message says what
            to fetch, from whom, and where to put it.
        ModuleNotFoundError: without `tensorflow-datasets`.
    """
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"tfds:{name} is read by tensorflow-datasets, which is not installed: "
            'pip install "jaxattr[data]"',
            name="tensorflow_datasets",
        ) from None
    builder = _builder(tfds, name)
    if "image" not in builder.info.features:
        raise ValueError(f"tfds:{name} has no images, but {', '.join(builder.info.features)}")
    _prepare(builder, name)
    splits = list(builder.info.splits)
    known = f"{builder.name}/{builder.builder_config.name}" if builder.builder_config else name
    usual = (REPORTED.get(known, "validation"), "validation", "test", *splits)
    chosen = split or next((s for s in usual if s in splits), usual[0])
    try:
        records = builder.as_data_source(split=chosen)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"tfds:{name} has no split {chosen!r}; it has {', '.join(splits)}: {error}"
        ) from None
    from_one = builder.name == "voc"  # rows and columns from 1, the last ones included
    names = _class_names(builder.info.features)
    number = {}
    if names and set(names) <= set(SYNSETS):  # a part of ImageNet, numbered as the whole
        number = {i: SYNSETS.index(k) for i, k in enumerate(names)}
        names = IMAGENET
    read = lambda i: _record(f"{chosen}:{i}", records[i], number, from_one=from_one)
    return Source(f"tfds:{name}", names, range(len(records)), read)


def _record(
    name: str, values: Mapping[str, Any], number: Mapping[int, int], *, from_one: bool
) -> Record:
    image = np.asarray(values["image"])
    objects = values.get("objects", {})
    relative = objects.get("bbox", values.get("bbox", ()))
    boxes = _pixels(np.asarray(relative, float).reshape(-1, 4), image.shape, from_one=from_one)
    label = np.atleast_1d(values.get("label", values.get("labels", ())))
    numbered = lambda labels: [number.get(int(k), int(k)) for k in labels]
    given = next((values[k] for k in IDS if k in values), name)
    return record(
        given.decode() if isinstance(given, bytes) else str(given),
        image,
        labels=numbered(label[label >= 0]),
        boxes=boxes,
        box_labels=numbered(objects.get("label", label if len(boxes) else ())),
        difficult=objects.get("is_difficult"),
    )


def _pixels(relative: np.ndarray, shape: tuple[int, ...], *, from_one: bool) -> np.ndarray:
    """Return the whole pixels of boxes given as shares `(first row, first column, end, end)`."""
    edges = relative.reshape(-1, 2, 2) * shape[:2]
    if from_one:
        return (edges.round() - [[1, 1], [0, 0]]).reshape(-1, 4).astype(int)
    near = 1e-3  # shares are float32: an edge between two pixels may come back beside it
    return np.stack([np.floor(edges[:, 0] + near), np.ceil(edges[:, 1] - near)], 1).reshape(-1, 4)


def _class_names(features: Any) -> tuple[str, ...]:
    """Return the names of the classes: of the image, else of its objects."""
    found = dict(features.items())
    inner = dict(found["objects"].feature.items()) if "objects" in found else {}
    label = found.get("label") or found.get("labels") or inner.get("label")
    return tuple(getattr(getattr(label, "feature", label), "names", None) or ())


def _builder(tfds: Any, name: str) -> Any:
    plain = name.partition(":")[0].partition("/")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"TensorFlow Datasets has no data set {plain!r}{hint}")
    with _without_tensorflow(tfds.builder_cls(plain)):
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))


def _prepare(builder: Any, name: str) -> None:
    """Write the ArrayRecord files, unless they are there."""
    if builder.info.splits and builder.info.file_format.value != "array_record":
        # Prepared by somebody else for TensorFlow: the same records once more, in the other form.
        builder.info.set_file_format("array_record", override=True)
    if builder.is_prepared():
        return
    try:
        with _without_tensorflow(type(builder)):
            builder.download_and_prepare(file_format="array_record")
    except AssertionError:
        manual = builder.data_path.parent.parent.parent / "downloads" / "manual"
        raise FileNotFoundError(
            f"tfds:{name} cannot be downloaded freely; put what it needs into {manual}: "
            f"{' '.join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or '').split())}"
        ) from None


@contextmanager
def _without_tensorflow(builder: Any) -> Iterator[None]:
    """Lend a data set's module the few functions of TensorFlow that it calls, if it is missing.

    They open files and name types; Python and numpy do the same.
    """
    if find_spec("tensorflow") is not None:
        yield
        return
    files = SimpleNamespace(exists=os.path.exists, listdir=os.listdir, GFile=open)
    stand_in = SimpleNamespace(io=SimpleNamespace(gfile=files), int64=np.int64, bool=np.bool_)
    package = builder.__module__.rpartition(".")[0]
    names = [n for n in sys.modules if n.startswith(f"{package}.")]
    names.append("tensorflow_datasets.core.download.extractor")
    spaces = [vars(sys.modules[n]) for n in names if hasattr(sys.modules.get(n), "tf")]
    before = [space["tf"] for space in spaces]
    try:
        for space in spaces:
            space["tf"] = stand_in
        yield
    finally:
        for space, tf in zip(spaces, before, strict=True):
            space["tf"] = tf
