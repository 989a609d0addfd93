"""How much memory do DMBP and LPR take per image, and what does it grow with?

    python benchmarks/learned_memory.py [vgg16 resnet50 efficientnet_lite0]

224 x 224, float32. XLA's own account of the working memory of the compiled program, in MiB, at
batch 1 and 4 and at 10 and 200 steps; beside it the size of all activations' outputs of one image,
which is the size of one set of masks. Nothing is run.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from math import prod

import jax
import jax.numpy as jnp
from flax import nnx
from tqdm import tqdm

import jaxattr
from jaxattr import models

METHODS = {"dmbp": jaxattr.dmbp, "lpr": jaxattr.lpr}
CASES = ((1, 10), (1, 200), (4, 10))
MIB = 2**20


def working_memory(name: str, make: Callable, batch: int, steps: int) -> float:
    """Return the MiB that XLA sets aside beside arguments and results."""
    graph, state = nnx.split(getattr(models, name)())

    def explain(state: nnx.State, x: jax.Array) -> jax.Array:
        net = nnx.merge(graph, state)
        return make(lambda x: net(x), steps=steps)(x, jnp.zeros(batch, int))

    x = jax.ShapeDtypeStruct((batch, 224, 224, 3), jnp.float32)
    return jax.jit(explain).lower(state, x).compile().memory_analysis().temp_size_in_bytes / MIB


def masks(name: str) -> float:
    """Return the MiB of the activations' outputs of one image."""
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    net = getattr(models, name)()
    found = [s for s in jaxattr.sites(lambda x: net(x), x) if s.kind == "activation"]
    return sum(4 * prod(s.shape) for s in found) / MIB


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    networks = ["vgg16", "resnet50", "efficientnet_lite0"]
    parser.add_argument("networks", nargs="*", default=networks)
    options = parser.parse_args()
    print("| | | masks | batch 1, 10 steps | batch 1, 200 steps | batch 4, 10 steps | per image |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    for name in options.networks:
        for method, make in METHODS.items():
            cases = tqdm(CASES, desc=f"{name}, {method}", leave=False)
            one, long, four = (working_memory(name, make, *case) for case in cases)
            cells = (masks(name), one, long, four, (four - one) / 3)
            print(f"| {name} | {method} | {' | '.join(f'{c:.0f}' for c in cells)} |", flush=True)


if __name__ == "__main__":
    main()
