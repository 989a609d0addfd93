"""A batch spread over the devices of a process, and the parts of a run over processes."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_STARTED = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_COORDINATOR_ADDRESS", "TPU_WORKER_ID")
"""Variables that tell of other processes of the same run."""


class Spread(NamedTuple):
    """Where arrays live: images over all local devices, the model on each of them."""

    images: NamedSharding
    everywhere: NamedSharding

    @property
    def devices(self) -> int:
        """How many devices share a batch."""
        return self.images.mesh.size


def spread() -> Spread:
    """Spread batches over this process's devices: processes do not wait for each other."""
    mesh = Mesh(np.array(jax.local_devices()), ("images",))
    return Spread(
        NamedSharding(mesh, PartitionSpec("images")), NamedSharding(mesh, PartitionSpec())
    )


def part(shard: str | None) -> tuple[int, int]:
    """Return which part of the run this process has: `(index, count)`.

    Args:
        shard: "i/n" of independent jobs, i from 0; or None, to ask `jax.distributed`, which finds
            Slurm, Open MPI, Kubernetes and TPU pods by their variables.

    Raises:
        ValueError: if `shard` is not of this form.

    >>> part("2/8")
    (2, 8)
    """
    if shard is not None:
        index, slash, count = shard.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"{shard!r} is no part of a run: give i/n, from 0/n to (n-1)/n")
        return int(index), int(count)
    if any(name in os.environ for name in _STARTED) and not jax.distributed.is_initialized():
        jax.distributed.initialize()
    return jax.process_index(), jax.process_count()


def with_weights(function: Callable[..., Any], model: Any, where: Spread) -> Callable[..., Any]:
    """Jit `function(model, x, ...)`, the weights on every device and no constants of the program.

    Arrays that follow are spread over the devices, keys are not.
    """
    leaves = jax.tree.leaves(model)
    if not all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves):
        return jax.jit(lambda *given: function(model, *given))  # a plain function: no weights
    placed = jax.device_put(model, where.everywhere)
    program = jax.jit(function)
    return lambda *given: program(placed, *given)
