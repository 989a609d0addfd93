"""Do DMBP and LPR rank pixels better than the plain methods, and which reading of them is best?

    python benchmarks/learned_quality.py DATA [--network cifar_resnet20] [--images 100] [--only X;Y]

DATA is as for `accuracy.py`. Of every method: insertion (area under the curve of the true class's
probability, 33 points or --points; the blurred start as RISE has it) with the channels of a pixel
summed, their positive parts summed, and their magnitudes summed; and what is left of the true
class's activation while the 5 % most (MoRF, less is better) and least (LeRF, more is better)
attributed pixels are zeroed, channels summed. Means over the images, the standard error of the
first insertion score behind it.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from accuracy import sample
from tqdm import tqdm

import jaxattr
from jaxattr import metrics
from jaxattr.contract import one_hot
from jaxattr.loops.optimization import minimize, parameters_like
from jaxattr.methods.dmbp import Decomposition, disentangling, guided, positive, positive_negative
from jaxattr.scores import probability

dmbp, lpr = jaxattr.dmbp, jaxattr.lpr
even, led = partial(dmbp, init=0.0), partial(dmbp, init=guided)


def purity(y: jax.Array, plus: jax.Array, minus: jax.Array) -> jax.Array:
    """Bound both terms: the parts by their sizes, the nuisance by the logit."""
    size = jnp.abs(plus) + jnp.abs(minus)
    return (minus - plus) / size + jnp.abs(y - plus - minus) / jnp.abs(y)


def logarithmic(y: jax.Array, plus: jax.Array, minus: jax.Array) -> jax.Array:
    """Let no part outgrow the others."""
    return jnp.arcsinh(minus) - jnp.arcsinh(plus) + jnp.arcsinh(jnp.abs(y - plus - minus))


def saturating(y: jax.Array, plus: jax.Array, minus: jax.Array) -> jax.Array:
    """Reward a part only up to the size of the logit."""
    size = jnp.abs(y)
    gain = jnp.maximum(minus, -size) - jnp.minimum(plus, size)
    return gain + jnp.abs(y - plus - minus)


def summed(part: Callable[[Decomposition], jax.Array], **options: object) -> Callable:
    """Make a method of another part of DMBP's decomposition."""

    def make(f: Callable) -> Callable:
        explain = jaxattr.dmbp_details(f, **options)
        return lambda x, target, *, key=None: part(explain(x, target))

    return make


def masked(
    steps: int = 50,
    *,
    scale: float = 1.0,
    carries: Callable[[int, int], bool] = lambda i, n: True,
    learning_rate: float = 0.01,
) -> Callable:
    """Make DMBP with masks `scale * sigmoid(theta)`, behind some of the activations only."""

    def make(f: Callable) -> Callable:
        def attribute(x: jax.Array, target: jax.Array, *, key: object = None) -> jax.Array:
            frozen = jaxattr.freeze(f, x)
            count = len(frozen.lines)

            def score(x: jax.Array, masks: tuple, *, bias: bool = False) -> jax.Array:
                logits = frozen.logits(x, masks, bias=bias)
                return (logits * one_hot(target, logits)).sum(-1)

            def masks(theta: tuple, sign: int) -> tuple:
                return tuple(
                    scale * jax.nn.sigmoid(sign * t) if carries(i, count) else jnp.ones_like(t)
                    for i, t in enumerate(theta)
                )

            y = (f(x) * one_hot(target, f(x))).sum(-1)
            loss = lambda theta, step: disentangling(
                y, *(score(x, masks(theta, sign)) for sign in (1, -1))
            )
            rms = optax.rmsprop(learning_rate, decay=0.99, eps=1e-8, eps_in_sqrt=False)
            start = parameters_like(frozen, 0.0, per_channel=False)
            theta, _ = minimize(loss, start, rms, steps)
            part = lambda sign: jax.grad(lambda x: score(x, masks(theta, sign)).sum())(x)
            return x * (part(1) + part(-1))

        return attribute

    return make


def times_image(method: Callable) -> Callable:
    """Multiply a method's maps by the image."""

    def make(f: Callable) -> Callable:
        attribute = method(f)
        return lambda x, target, *, key=None: x * attribute(x, target, key=key)

    return make


LPR: dict[str, dict[str, Any]] = {
    "": {},
    ", probability": {"score": probability},
    ", no baseline": {"baseline": None},
    ", no baseline, gate": {"baseline": None, "gate": True},
    ", per channel": {"per_channel": True},
    ", sign-aware off": {"sign_aware": False},
    ", smoothed masks": {"smoothing": 1.0},
}
METHODS = {
    "random": lambda f: lambda x, target, *, key=None: jax.random.normal(key, x.shape),
    "gradient * input (ND)": jaxattr.input_x_gradient,
    "guided backprop * input": times_image(jaxattr.guided_backprop),
    "SmoothGrad * input": times_image(
        lambda f: jaxattr.smoothgrad(jaxattr.saliency(f), samples=20)
    ),
    "Grad-CAM": jaxattr.grad_cam,
    "DMBP, guided start": led,
    "DMBP, guided start, 10 steps": partial(led, steps=10),
    "DMBP, guided start by 0.5, 10 steps": partial(
        dmbp, steps=10, init=lambda *state: tuple(theta / 4 for theta in guided(*state))
    ),
    "DMBP, guided start, 50 steps": partial(led, steps=50),
    "DMBP, guided start, positive, 50 steps": partial(led, steps=50, loss=positive),
    "DMBP, guided start, positive-negative, 50 steps": partial(
        led, steps=50, loss=positive_negative
    ),
    "DMBP, guided start, bias terms, 10 steps": partial(led, steps=10, bias=True),
    "DMBP, guided start, per channel, 10 steps": partial(led, steps=10, per_channel=True),
    "DMBP, literal: even start, bias terms": partial(even, bias=True),
    "DMBP, even start, bias terms, 50 steps": partial(even, steps=50, bias=True),
    "DMBP, even start": even,
    "DMBP, even start, positive, 50 steps": partial(even, steps=50, loss=positive),
    "DMBP, even start, positive-negative, 50 steps": partial(
        even, steps=50, loss=positive_negative
    ),
    "DMBP, even start, 1 step": partial(even, steps=1),
    "DMBP, even start, 3 steps": partial(even, steps=3),
    "DMBP, even start, 10 steps": partial(even, steps=10),
    "DMBP, even start, positive, 10 steps": partial(even, steps=10, loss=positive),
    "DMBP, even start, positive-negative, 10 steps": partial(
        even, steps=10, loss=positive_negative
    ),
    "DMBP, even start, bias terms, 10 steps": partial(even, steps=10, bias=True),
    "DMBP, even start, 50 steps": partial(even, steps=50),
    "DMBP, even start, per channel, 50 steps": partial(even, steps=50, per_channel=True),
    "DMBP, theta 2, 50 steps": partial(dmbp, steps=50, init=2.0),
    "DMBP, even start, rate 0.04, 50 steps": partial(even, steps=50, learning_rate=0.04),
    "DMBP, even start, eps 1e-16, 50 steps": partial(
        even, steps=50, optimizer=optax.rmsprop(0.01, decay=0.99, eps=1e-16, eps_in_sqrt=False)
    ),
    "DMBP, even start, decay 0.9, 50 steps": partial(
        even, steps=50, optimizer=optax.rmsprop(0.01, decay=0.9, eps=1e-8, eps_in_sqrt=False)
    ),
    "DMBP, even start, Adam 0.1, 50 steps": partial(even, steps=50, optimizer=optax.adam(0.1)),
    "DMBP, even start, sign, 5 steps": partial(even, steps=5, optimizer=optax.sign_sgd(1.0)),
    "DMBP, even start, sign, 20 steps": partial(even, steps=20, optimizer=optax.sign_sgd(1.0)),
    "DMBP, even start, positive part only, 50 steps": summed(
        lambda d: d.positive, steps=50, init=0.0
    ),
    "DMBP, even start, positive less negative part, 50 steps": summed(
        lambda d: d.positive - d.negative, steps=50, init=0.0
    ),
    "DMBP, even start, bounded by purity, 50 steps": partial(even, steps=50, loss=purity),
    "DMBP, even start, logarithmic, 50 steps": partial(even, steps=50, loss=logarithmic),
    "DMBP, even start, saturating, 50 steps": partial(even, steps=50, loss=saturating),
    "DMBP, even start, masks twice the sigmoid, 50 steps": masked(scale=2.0),
    "DMBP, even start, masks behind the first half, 50 steps": masked(
        carries=lambda i, n: i < n / 2
    ),
    "DMBP, even start, masks behind the last half, 50 steps": masked(
        carries=lambda i, n: i >= n / 2
    ),
    "DMBP, even start, masks behind every other activation, 50 steps": masked(
        carries=lambda i, n: i % 2 == 0
    ),
} | {
    f"LPR{name}, {steps} steps": partial(lpr, steps=steps, **options)
    for steps in (50, 10)
    for name, options in LPR.items()
}
REDUCTIONS = (jaxattr.heatmap, metrics.positive_sum, metrics.magnitude_sum)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--points", type=int, default=33, help="of insertion")
    parser.add_argument("--morf-points", type=int, default=21, help="of MoRF and LeRF")
    parser.add_argument("--only", help="methods whose names contain one of these")
    options = parser.parse_args()
    (net, *_), x, target = sample(options.data, options.network, options.images)
    step = x.shape[1] * x.shape[2] // (options.points - 1)

    def scores(make: Callable, net: Callable, x: jax.Array, target: jax.Array) -> list[jax.Array]:
        f = lambda x: net(x)
        a = make(f)(x, target, key=jax.random.key(0))
        found = [metrics.insertion(f, step=step, reduce=r)(x, target, a).score for r in REDUCTIONS]
        steps = options.morf_points - 1
        relevant = (measure(f, steps=steps) for measure in (metrics.morf, metrics.lerf))
        return [*found, *(measure(x, target, a).score for measure in relevant)]

    print(f"{options.network}, {len(x)} images")
    print("| | insertion: sum | positive | magnitude | MoRF | LeRF |\n|---|---|---|---|---|---|")
    for name, make in METHODS.items():
        if options.only and not any(part in name for part in options.only.split(";")):
            continue
        run = jax.jit(partial(scores, make))
        batches = range(0, len(x), options.batch)
        rows = [
            np.stack(run(net, x[i : i + options.batch], target[i : i + options.batch]), 1)
            for i in tqdm(batches, desc=name, leave=False)
        ]
        table = np.concatenate(rows)
        means = np.nanmean(table, 0)
        error = np.nanstd(table[:, 0]) / np.sqrt(len(table))
        cells = [f"{means[0]:.3f} ± {error:.3f}", *(f"{m:.3f}" for m in means[1:])]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
