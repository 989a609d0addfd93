"""The jitted functions of a run, in smaller parts of a batch where memory is short."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr import catalogue, lowered
from jaxattr.runner.devices import Spread, with_weights
from jaxattr.runner.jobs import Job
from jaxattr.scores import logit, probabilities
from jaxattr.types import Array, Key

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class Work(NamedTuple):
    """A batch on its way: what was read, and what the devices make of it."""

    number: int
    ids: list[str | None]
    failures: dict[int, str]
    x: np.ndarray
    target: np.ndarray
    found: Any


class Programs:
    """The jitted functions of a job; they take smaller parts of a batch when memory is short.

    Attributes:
        parts: how many parts a batch is taken in.
        first: the method that shares its forward pass with the classification.
        begin: from images and known classes to what is stored beside the maps, and `first`'s maps.
        others: for each other method, from images and classes to maps, and which are finite.
    """

    def __init__(self, job: Job, model: Any, where: Spread):
        self.job, self.where, self.parts = job, where, 1
        self.multi_label = getattr(model, "multi_label", False)
        (self.first, explained), *others = (
            (name, self._method(catalogue.find(name), dict(options)))
            for name, options in job.methods.items()
        )

        def explained_first(model: Any, x: Array, target: Array, key: Key) -> tuple[Any, ...]:
            facts = self._classify(model, x, target)
            return facts, explained(model, x, facts["target"], key)

        self.begin = with_weights(explained_first, model, where)
        self.others = {name: with_weights(run, model, where) for name, run in others}

    def _classify(self, model: Any, x: Array, target: Array) -> dict[str, Array]:
        logits = lowered(lambda x: model(x))(x)
        likely = probabilities(logits, multi_label=self.multi_label)
        top = likely.argmax(-1)
        target = jnp.where(target < 0, top, target)
        return {
            "target": target,
            "probability": logit(likely, target),
            "predicted": top,
            "predicted_probability": likely.max(-1),
        }

    def _method(self, chain: Any, options: Mapping[str, Any]) -> Callable[..., Any]:
        def explained(model: Any, x: Array, target: Array, key: Key) -> tuple[Array, Array]:
            a = catalogue.build(chain, lambda x: model(x), **options)(x, target, key=key)
            a = a.astype(jnp.promote_types(a.dtype, jnp.float32))
            a = a if self.job.channels else a.sum(-1)
            return a.astype(self.job.dtype), jnp.isfinite(a).all(range(1, a.ndim))

        return explained

    def start(self, number: int, x: np.ndarray, target: np.ndarray) -> list[dict[str, Any]]:
        """Start the devices on a batch; nothing if memory is short at once."""
        try:
            return self._run(number, x, target)
        except jax.errors.JaxRuntimeError as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            return []

    def _run(self, number: int, x: np.ndarray, target: np.ndarray) -> list[dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(self.job.seed), number)
        found = []
        for rows, classes in zip(
            np.split(x, self.parts), np.split(target, self.parts), strict=True
        ):
            placed, known = jax.device_put((rows, classes), self.where.images)
            facts, maps = self.begin(placed, known, key)
            rest = {k: run(placed, facts["target"], key) for k, run in self.others.items()}
            found.append({**facts, "maps": {self.first: maps, **rest}})
        return found

    def collect(self, work: Work) -> dict[str, Any]:
        """Wait for a batch, and halve it as often as memory asks for."""
        found = work.found
        while True:
            try:
                found = found or self._run(work.number, work.x, work.target)
                return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
            except jax.errors.JaxRuntimeError as error:
                whole = self.job.batch % (2 * self.parts * self.where.devices) == 0
                if _OUT_OF_MEMORY not in str(error) or not whole:
                    raise
                self.parts *= 2
                warnings.warn(
                    f"out of memory: from batch {work.number} on {self.job.batch // self.parts} "
                    f"images at a time instead of {2 * self.job.batch // self.parts}",
                    stacklevel=4,
                )
                found = []
