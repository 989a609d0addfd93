"""What do metrics of pixel flipping cost, beside Quantus?

    python benchmarks/peer_metrics.py [--images 16] [--rounds 3]

in an environment with torch, quantus 0.6.0 and scikit-image. One small network of two convolutions
with the same random weights in torch and in JAX, images of 32 x 32 of one color (Quantus replaces
each color of a pixel apart), the same maps, steps and replacement by zero. Each metric is run once
in every round, Quantus after jaxattr; printed are the medians of the seconds (and of the seconds of
the processor), the seconds that the first call took to compile, and by how much the scores differ.
"""

import os
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from jaxattr import metrics

SIZE, CLASSES, STEP, PATCH, SEGMENTS = 32, 10, 8, 2, 64

RANDOM = ("IROF", "sensitivity-n", "faithfulness correlation")
"""Metrics whose numbers differ: other draws, other units."""


def networks() -> tuple[torch.nn.Module, Callable]:
    """Build the network in torch and in JAX."""
    torch.manual_seed(0)
    convolutions = [torch.nn.Conv2d(*c, 3, 2, 1) for c in ((1, 8), (8, 16))]
    last = torch.nn.Linear(16 * (SIZE // 4) ** 2, CLASSES)
    first, second = convolutions
    layers = first, torch.nn.ReLU(), second, torch.nn.ReLU(), torch.nn.Flatten(), last
    theirs = torch.nn.Sequential(*layers, torch.nn.Softmax(1)).eval().requires_grad_(False)
    every = *convolutions, last
    weights = [tuple(jnp.asarray(p.numpy()) for p in layer.parameters()) for layer in every]

    def ours(x: jax.Array) -> jax.Array:
        for kernel, bias in weights[:2]:
            x = lax.conv_general_dilated(
                x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "OIHW", "NHWC")
            )
            x = jax.nn.relu(x + bias)
        kernel, bias = weights[2]
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ kernel.T + bias

    return theirs, ours


def ours(f: Callable, segments: np.ndarray) -> dict[str, Callable]:
    """Compile metrics of jaxattr, to what is compared of their results."""
    p = {"score": metrics.probability, "chunk": 64}
    steps = (SIZE // PATCH) ** 2
    found: dict[str, Callable] = {
        "pixel flipping": lambda *a: metrics.deletion(f, step=STEP, **p)(*a).curve[:, 1:],
        "region perturbation": lambda *a: metrics.region_perturbation(
            f, size=PATCH, steps=steps, **p
        )(*a).curve[:, 1:],
        "selectivity": lambda *a: metrics.selectivity(f, size=PATCH, **p)(*a).curve[:, 1:],
        "sensitivity-n": lambda *a: (
            metrics.sensitivity_n(f, counts=(SIZE,), samples=SIZE * SIZE // STEP, **p)(
                *a, key=jax.random.key(0)
            ).score
        ),
        "IROF": lambda *a: (
            metrics.irof(f, regions=int(segments.max()) + 1, **p)(*a, segments).score
        ),
        "faithfulness correlation": lambda *a: (
            metrics.faithfulness_correlation(f, size=SIZE, **p)(*a, key=jax.random.key(0)).score
        ),
        "faithfulness estimate": lambda *a: (
            metrics.faithfulness_estimate(f, step=STEP, **p)(*a).score
        ),
    }
    return {name: jax.jit(run) for name, run in found.items()}


def quantus(
    net: torch.nn.Module, x: np.ndarray, target: np.ndarray, a: np.ndarray
) -> dict[str, Callable]:
    """Prepare the metrics of Quantus."""
    np.trapz = np.trapezoid  # type: ignore[attr-defined]
    import quantus  # type: ignore[reportMissingImports]

    warnings.simplefilter("ignore")
    o = {"normalise": False, "disable_warnings": True, "perturb_baseline": 0.0}
    steps = (SIZE // PATCH) ** 2
    every = {
        "pixel flipping": quantus.PixelFlipping(features_in_step=STEP, **o),
        "region perturbation": quantus.RegionPerturbation(
            patch_size=PATCH, regions_evaluation=steps, **o
        ),
        "selectivity": quantus.Selectivity(patch_size=PATCH, **o),
        "sensitivity-n": quantus.SensitivityN(features_in_step=STEP, n_max_percentage=1.0, **o),
        "IROF": quantus.IROF(return_aggregate=False, **o),
        "faithfulness correlation": quantus.FaithfulnessCorrelation(
            subset_size=SIZE, return_aggregate=False, **o
        ),
        "faithfulness estimate": quantus.FaithfulnessEstimate(features_in_step=STEP, **o),
    }
    arrays = [np.ascontiguousarray(np.moveaxis(b, -1, 1)) for b in (x, a)]
    given = {"y_batch": target, "softmax": True, "batch_size": len(x)}

    def of(metric: Any) -> Callable:
        return lambda: np.asarray(metric(net, arrays[0].copy(), a_batch=arrays[1].copy(), **given))

    return {name: of(metric) for name, metric in every.items()}


def seconds(run: Callable) -> tuple[float, float]:
    """Return how long a call takes, and how long the processor works for it."""
    start, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - busy


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from skimage.segmentation import slic

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.images, SIZE, SIZE, 1)).astype(np.float32)
    a = rng.normal(size=x.shape).astype(np.float32)
    theirs, f = networks()
    target = np.asarray(f(jnp.asarray(x)).argmax(-1))
    segments = np.stack([slic(image.astype(float), start_label=0) for image in x])
    fast, slow = ours(f, segments), quantus(theirs, x, target, a)
    print("| | jaxattr, s | Quantus, s | ratio | of processor time | compiled in, s | difference |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, run in fast.items():
        call = lambda run=run: jax.block_until_ready(run(x, target, a))
        first = seconds(call)[0]
        apart, same = call(), slow[name]()
        close = np.shape(apart) == np.shape(same) and name not in RANDOM
        difference = f"{np.abs(apart - same).max():.0e}" if close else "-"
        rounds = [(seconds(call), seconds(slow[name])) for _ in range(options.rounds)]
        mine, other = ([median(r[i][j] for r in rounds) for j in (0, 1)] for i in (0, 1))
        ratios = [median(r[1][j] / r[0][j] for r in rounds) for j in (0, 1)]
        print(
            f"| {name} | {mine[0]:.3f} | {other[0]:.2f} | {ratios[0]:.0f} | {ratios[1]:.0f} | "
            f"{first - mine[0]:.1f} | {difference} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
