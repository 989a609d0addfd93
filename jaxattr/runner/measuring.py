"""The metrics of stored maps, as programs of a batch."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxattr import metrics
from jaxattr.data import Record, class_mask
from jaxattr.runner.devices import spread, with_weights
from jaxattr.scores import sigmoid
from jaxattr.types import Array


def _positional(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments that a function takes by place."""
    every = inspect.signature(function).parameters.values()
    return tuple(p.name for p in every if p.kind is not p.KEYWORD_ONLY)


def _needed(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments without a default."""
    every = inspect.signature(function).parameters.values()
    return tuple(p.name for p in every if p.default is p.empty)


def _of_model(metric: Callable[..., Any]) -> bool:
    """Whether a metric makes of a model a function of images, classes and maps."""
    made_of_maps = ("x", "target", "attribution")
    return _needed(metric) == ("f",) and _positional(metric(lambda x: x)) == made_of_maps


_PUBLIC = {
    n: m for n, m in vars(metrics).items() if inspect.isfunction(m) and not n.startswith("_")
}
OF_MODEL = tuple(name for name, metric in _PUBLIC.items() if _of_model(metric))
OF_TRUTH = tuple(n for n, m in _PUBLIC.items() if _needed(m) == ("attribution", "mask"))
OF_MAP = tuple(n for n, m in _PUBLIC.items() if _needed(m) == ("attribution",))
METRICS = (*OF_MODEL, *OF_TRUTH, *OF_MAP)
"""The metrics of stored maps; the other metrics compare networks, or methods, or need more."""

LOWER = (
    "deletion",
    "morf",
    "road",
    "selectivity",
    "average_drop",
    "completeness_error",
    "infidelity",
    "non_sensitivity",
    "complexity",
    "effective_complexity",
    "boundary_dependency",
)
"""Those of which a lower score is the better one."""

CANVAS = 256
"""Photographs are padded to a multiple of this, so that few shapes are compiled."""


class Measured(NamedTuple):
    """What a metric finds in a batch.

    Attributes:
        score: `(B,)`, NaN where there is none.
        curve: `(B, n + 1)` where the metric has one, else None.
    """

    score: np.ndarray
    curve: np.ndarray | None = None


def program(name: str, options: dict[str, Any], model: Any, alone: bool) -> Callable[..., Measured]:
    """Return `(x, target, maps, truth) -> Measured` of a metric; a class may stand `alone`."""
    metric = getattr(metrics, name)
    if name in OF_MODEL:
        if alone:
            options.setdefault("score", sigmoid)

        def of_model(model: Any, x: Array, target: Array, a: Array) -> tuple[Array, ...]:
            measure = metric(lambda x: model(x), **options)
            keyed = "key" in inspect.signature(measure).parameters
            found = measure(x, target, a, **({"key": jax.random.key(0)} if keyed else {}))
            return (found.score, found.curve) if hasattr(found, "curve") else (found.score,)

        run = with_weights(of_model, model, spread())
        return lambda x, target, a, truth: Measured(*map(np.asarray, run(x, target, a)))
    if name in OF_MAP:
        of_map = jax.jit(lambda a: metric(a, **options).score)
        return lambda x, target, a, truth: Measured(np.asarray(of_map(a)))
    of_truth = jax.jit(lambda a, mask, **given: metric(a, mask, **given, **options).score)

    def measured(x: Any, target: Any, a: np.ndarray, truth: dict[str, Any]) -> Measured:
        given = truth if name == "segmentation_iou" else {k: truth[k] for k in ("mask", "sizes")}
        return Measured(np.where(truth["mask"].any((1, 2)), of_truth(a, **given), np.nan))

    return measured


def truth_of(
    records: Sequence[Record], target: np.ndarray, preprocess: Any
) -> dict[str, np.ndarray]:
    """Return masks of the classes in the visible part of each photograph, padded to one shape."""
    parts = []
    for record, label in zip(records, target, strict=True):
        r0, c0, r1, c1 = preprocess.geometry(record.image.shape[:2]).visible
        void = np.zeros(record.image.shape[:2], bool) if record.void is None else record.void
        parts.append([m[r0:r1, c0:c1] for m in (class_mask(record, int(label)), void)])
    sizes = np.array([mask.shape for mask, _ in parts], int).reshape(-1, 2)
    canvas = -(-sizes.max(0, initial=1) // CANVAS) * CANVAS
    mask, void = (np.zeros((len(parts), *canvas), bool) for _ in range(2))
    for i, (m, v) in enumerate(parts):
        mask[i, : m.shape[0], : m.shape[1]], void[i, : m.shape[0], : m.shape[1]] = m, v
    return {"mask": mask, "void": void, "sizes": sizes}


def filled(given: Any, size: int) -> Any:
    """Fill a batch up by copies of its first image, so that one program serves all batches."""
    fill = lambda a: np.concatenate([a, np.repeat(a[:1], size - len(a), 0)])
    return jax.tree.map(fill, given)
