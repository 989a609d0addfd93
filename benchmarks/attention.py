"""What does relevance through a vision transformer cost beside its gradient, in time and memory?

    python benchmarks/attention.py --blocks 12

A transformer of width 64 with random weights, 17 tokens and 16 images; the shortest of some runs,
in seconds of the CPU, and the memory that the compiled program needs for what it computes on the
way.
"""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxattr
from jaxattr.rules import composites

METHODS = {
    "saliency": jaxattr.saliency,
    "lrp (the default, gamma)": jaxattr.lrp,
    "lrp, attn_lrp()": lambda f: jaxattr.lrp(f, composite=composites.attn_lrp()),
    "lrp, cp_lrp()": lambda f: jaxattr.lrp(f, composite=composites.cp_lrp()),
    "libragrad": jaxattr.libragrad,
    "generic_attention": jaxattr.generic_attention,
    "transformer_attribution": jaxattr.transformer_attribution,
}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import modern

    modern.WIDTH = 64
    jax.config.update("jax_enable_x64", True)  # in which weights are drawn
    f = modern.vit(blocks=options.blocks)
    x, target = jax.random.normal(jax.random.key(1), (16, 8, 8, 3), "float32"), jnp.arange(16) % 5
    of_gradient = None
    for name, method in METHODS.items():
        found = measured(method(f), x, target, options.rounds)
        of_gradient = of_gradient or found
        ratios = [a / b for a, b in zip(found, of_gradient, strict=True)]
        print(f"{name}: {ratios[0]:.1f} times the gradient's time, {ratios[1]:.1f} its memory")


def measured(explain: Callable, x: jax.Array, target: jax.Array, rounds: int) -> tuple:
    """Return seconds and bytes of a compiled attribution."""
    program = jax.jit(explain).lower(x, target).compile()
    jax.block_until_ready(program(x, target))
    times = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(program(x, target))
        times.append(time.process_time() - start)
    return min(times), program.memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    main()
