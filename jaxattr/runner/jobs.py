"""What a run computes: a configuration, and the examples of a data set that it names."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxattr import catalogue
from jaxattr.data import Source
from jaxattr.runner.store import TYPES, Store, differences

TARGETS = ("label", "top", "all-labels")
"""What is explained: an image's only label, the likeliest class, or each of its labels."""


class Job(NamedTuple):
    """What is computed. All of it is stored, and a folder takes no other.

    Attributes:
        data: the name of the data set.
        model: the name of the model.
        methods: names as the catalogue has them, each with its options.
        target: one of `TARGETS`, or the number of a class for all images.
        split: of the data set.
        weights: the name of published weights.
        checkpoint: a file of weights, and `key`, `ema`, `rename` ("OLD=NEW") how it is read, as by
            `jaxattr.models.load`.
        class_names: of the checkpoint's classes, where no file beside it says them.
        batch: images at a time, in all devices of a process together, and in a chunk of the store.
        dtype: how maps are stored.
        channels: whether maps keep their channels; by default their sum is stored.
        seed: of methods that draw random numbers; each batch has a key of its own.
        limit: how many examples, from the first; by default all.
    """

    data: str
    model: str
    methods: Mapping[str, Mapping[str, Any]]
    target: str | int = "label"
    split: str | None = None
    weights: str | None = None
    checkpoint: str | None = None
    key: str | None = None
    ema: bool = True
    rename: Sequence[str] = ()
    class_names: Sequence[str] = ()
    batch: int = 16
    dtype: str = "float32"
    channels: bool = False
    seed: int = 0
    limit: int | None = None


def check(job: Job) -> None:
    """Refuse a job that cannot be run.

    Raises:
        ValueError: with what is wrong and what there is.
    """
    if not job.methods:
        raise ValueError("the job names no method")
    if isinstance(job.target, str) and job.target not in TARGETS:
        raise ValueError(
            f"there is no target {job.target!r}: give {', '.join(TARGETS)}, or a class"
        )
    if job.dtype not in TYPES:
        raise ValueError(f"maps cannot be stored as {job.dtype!r}, but as {', '.join(TYPES)}")
    for name, options in job.methods.items():
        known = {option: None for m in catalogue.find(name) for option in m.options}
        for option in options:
            if option not in known:
                raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known)}")
    if job.batch < 1:
        raise ValueError(f"a batch of {job.batch} images cannot be explained")


def configuration(job: Job, model: Any, preprocess: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Return all that a result depends on: the job, the weights' hash, versions, class names."""
    packages = ("jaxattr", "jax", "jaxlib", "flax", "numpy", "pillow")
    return {
        **job._asdict(),
        "methods": {name: dict(options) for name, options in job.methods.items()},
        "rename": list(job.rename),
        "class_names": list(job.class_names),
        "preprocess": repr(preprocess) if isinstance(preprocess, tuple) else "a function",
        "sha256_of_weights": hash_of(model),
        "versions": {name: _version(name) for name in packages},
        "classes": list(classes),
    }


def claim(store: Store, config: Mapping[str, Any]) -> None:
    """Write the configuration into a store, or see that it is the one there.

    Raises:
        ValueError: if the store has another one, with the differences, or is a folder with files
            of another origin.
    """
    there = store.files()
    if there and store.read("zarr.json") is None:
        raise ValueError(
            f"{store.url} holds no run, but {there[0]}: give a folder that is new or empty"
        )
    group = {"zarr_format": 3, "node_type": "group", "attributes": config}
    if store.create("zarr.json", group):
        return
    known = store.read("zarr.json").get("attributes", {})
    differing = [d for d in differences(known, config) if not d.startswith("ids:")]
    if differing:
        listed = "".join(f"\n  {d}" for d in differing)
        raise ValueError(
            f"{store.url} holds another run, so that this one would mix with it; they differ in"
            f"{listed}\ngive another folder"
        )


def examples(job: Job, source: Source, store: Store) -> np.ndarray:
    """Return what is explained, int `(n, 2)`: positions in the source, and classes.

    The class is -1 where it is known later: the likeliest, or the label that is read with the
    image. Labels are read once, and kept in the store.
    """
    limit = slice(job.limit)
    if job.target != "all-labels":
        known = job.target if isinstance(job.target, int) else -1
        return np.array([(i, known) for i in range(len(source))], int).reshape(-1, 2)[limit]
    found = store.read("examples.json")
    if found is None:
        found = []
        for i in range(len(source)):
            try:
                found += [(i, label) for label in source.labels(i)]
            except (ValueError, OSError):
                found.append((i, -1))  # it fails once more when it is explained, and is named
        store.write("examples.json", found)
    return np.array(found, int).reshape(-1, 2)[limit]


def hash_of(model: Any) -> str:
    """Return the SHA-256 of a model's arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model):
        if isinstance(leaf, (jax.Array, np.ndarray)):
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
