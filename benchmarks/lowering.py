"""What does each layer cost on the CPU as JAX has it, and as jaxattr lowers it?

For the value, the derivative to the input, and a sum of derivatives in `lax.scan` (per iteration),
both forms run once per round, in turn:

    python benchmarks/lowering.py [--rounds 9]

Printed, as a Markdown table, are the smallest times of all cores together, in milliseconds, means
over five runs: CPU time says what a layer costs on a machine that does other work too.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxattr

TURNS, REPEATS = 4, 5


def conv(
    n: int, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[Callable, np.ndarray, np.ndarray]:
    """Return a convolution over two images of `n x n` pixels, its input and its kernel."""
    draw = np.random.default_rng(0).standard_normal
    x = draw((2, n, n, inputs), np.float32)
    w = draw((kernel, kernel, inputs // groups, outputs), np.float32)

    def f(w: jax.Array, x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return f, x, w


def pool(
    n: int, channels: int, size: int, stride: int, start: float, op: Callable
) -> tuple[Callable, np.ndarray, np.ndarray]:
    """Return a pool over two images of `n x n` pixels, its input and no kernel."""
    x = np.random.default_rng(0).standard_normal((2, n, n, channels), np.float32)
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return (
        lambda _, x: lax.reduce_window(x, start, op, window, strides, "SAME"),
        x,
        np.zeros(()),
    )


LAYERS = {
    "3x3, 256 @ 56": conv(56, 256, 256, 3),
    "3x3 / 2, 128 @ 56": conv(56, 128, 128, 3, 2),
    "7x7 / 2, 3-64 @ 224": conv(224, 3, 64, 7, 2),
    "3x3, 512 @ 2": conv(2, 512, 512, 3),
    "1x1, 256-64 @ 56": conv(56, 256, 64, 1),
    "1x1 / 2, 256-512 @ 56": conv(56, 256, 512, 1, 2),
    "16x16 / 16, 3-768 @ 224": conv(224, 3, 768, 16, 16),
    "3x3 depthwise, 96 @ 56": conv(56, 96, 96, 3, groups=96),
    "3x3 / 2 depthwise, 96 @ 112": conv(112, 96, 96, 3, 2, groups=96),
    "5x5 depthwise, 240 @ 28": conv(28, 240, 240, 5, groups=240),
    "7x7 depthwise, 96 @ 56": conv(56, 96, 96, 7, groups=96),
    "3x3 in 32 groups, 256 @ 28": conv(28, 256, 256, 3, groups=32),
    "max-pool 2x2 / 2, 64 @ 224": pool(224, 64, 2, 2, -np.inf, lax.max),
    "max-pool 3x3 / 2, 64 @ 112": pool(112, 64, 3, 2, -np.inf, lax.max),
    "sum-pool 3x3, 256 @ 28": pool(28, 256, 3, 1, 0.0, lax.add),
}


def jobs(f: Callable, x: np.ndarray, w: np.ndarray) -> Iterator[Callable[[], object]]:
    """Compile the value, the derivative, and the derivative inside a loop."""
    c = jnp.ones(jax.eval_shape(f, w, x).shape)
    cs = jnp.stack([c] * TURNS)

    def bar(w: jax.Array, x: jax.Array, c: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: f(w, x), x)[1](c)[0]

    def loop(w: jax.Array, x: jax.Array, cs: jax.Array) -> jax.Array:
        return lax.scan(lambda total, c: (total + bar(w, x, c), None), jnp.zeros_like(x), cs)[0]

    for job, args in ((f, (w, x)), (bar, (w, x, c)), (loop, (w, x, cs))):
        program = jax.jit(job).lower(*args).compile()
        yield lambda program=program, args=args: jax.block_until_ready(program(*args))


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print("| layer | value: own | ours | derivative: own | ours | in a loop: own | ours |")
    print("|---|---|---|---|---|---|---|")
    for name, (f, x, w) in LAYERS.items():
        lowered = lambda w, x, f=f: jaxattr.lowered(lambda x: f(w, x))(x)
        cells = []
        pairs = zip(jobs(f, x, w), jobs(lowered, x, w), strict=True)
        for turns, pair in zip((1, 1, TURNS), pairs, strict=True):
            times = [[], []]
            for _ in range(rounds + 1):
                for run, taken in zip(pair, times, strict=True):
                    start = time.process_time()
                    for _ in range(REPEATS):
                        run()
                    taken.append((time.process_time() - start) / REPEATS / turns)
            cells += [f"{1e3 * min(t[1:]):.1f}" for t in times]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
