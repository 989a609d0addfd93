"""A batch spread over the devices of a process, and the parts of a run over processes."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_STARTED = ("SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri", "JOB_COMPLETION_INDEX", "TPU_WORKER_ID")
"""Variables by which Slurm's steps, Open MPI, Kubernetes and TPU pods tell of other processes."""


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


def connect() -> None:
    """Join the other processes of a run, before anything else is asked of JAX.

    `jax.distributed` knows Slurm, Open MPI, Kubernetes and TPU pods by their variables; elsewhere
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say the same.
    """
    if jax.distributed.is_initialized():
        return
    if "JAX_NUM_PROCESSES" in os.environ:
        number, own = (int(os.environ[f"JAX_{k}"]) for k in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(num_processes=number, process_id=own)
    elif any(name in os.environ for name in _STARTED):
        jax.distributed.initialize()


def part(shard: str | None) -> tuple[int, int]:
    """Return which part of the run this process has: `(index, count)`.

    Args:
        shard: "i/n" of independent jobs, i from 0; or None for JAX's own processes.

    Raises:
        ValueError: if `shard` is not of this form.

    >>> part("2/8"), part(None)
    ((2, 8), (0, 1))
    """
    if shard is None:
        return jax.process_index(), jax.process_count()
    index, slash, count = shard.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"{shard!r} is no part of a run: give i/n, from 0/n to (n-1)/n")
    return int(index), int(count)


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
