"""How long do maps take to be traced and compiled, beside the gradient of JAX?

EfficientNet-Lite0 and ResNet-50 with random weights, one image, float32. `grad` is `jax.grad` of a
logit of the network as it stands. Each method is traced, lowered to StableHLO and compiled by XLA
from the start, with JAX's caches empty:

    python benchmarks/compilation.py [--size 96] [--methods lrp,rsp] [--profile]

Printed are CPU seconds of each, of all cores together, their ratios to those of `grad`, and how
many equations the jaxpr has, those inside it included. `docs/speed.md` has the figures.
"""

import cProfile
import pstats
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import jaxattr
from jaxattr.models.efficientnet_lite import efficientnet_lite0
from jaxattr.models.resnet import resnet50

METHODS = ("saliency", "lrp", "rap", "rsp", "guided_backprop", "dmbp", "fullgrad", "tr_gbp")
NETWORKS = {"EfficientNet-Lite0": efficientnet_lite0, "ResNet-50": resnet50}


class Times(NamedTuple):
    """CPU seconds from a function to a program that runs."""

    trace: float
    lower: float
    compile: float
    equations: int


def measure(f: Callable[..., Any], *args: Any) -> Times:
    """Compile a function from the start."""
    jax.clear_caches()
    a = time.process_time()
    traced = jax.jit(f).trace(*args)
    b = time.process_time()
    lowered = traced.lower()
    c = time.process_time()
    lowered.compile()
    return Times(b - a, c - b, time.process_time() - c, equations(traced.jaxpr.jaxpr))


def equations(jaxpr: Any) -> int:
    """Return how many equations a jaxpr has, those inside it included."""
    inner = (b for e in jaxpr.eqns for b in jax.tree.leaves(list(e.params.values())))
    found = (getattr(b, "jaxpr", b) for b in inner)
    return len(jaxpr.eqns) + sum(equations(b) for b in found if hasattr(b, "eqns"))


def main() -> None:
    """Measure."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96, help="of the image, in pixels")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--profile", action="store_true", help="print where tracing takes its time")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    x, target = jnp.ones((1, options.size, options.size, 3)), jnp.array([0])
    for network in options.networks.split(","):
        f = shaken(NETWORKS[network](rngs=nnx.Rngs(0)))
        gradient = measure(grad(f), x, target)
        print(f"\n{network}  trace  lower  compile  (ratios)  equations")
        report("grad", gradient, gradient)
        for name in options.methods.split(","):
            method = getattr(jaxattr, name)(f)
            if options.profile:
                profile(method, x, target)
            report(name, measure(method, x, target), gradient)


def shaken(f: Any) -> Any:
    """Return a network in evaluation mode, none of its biases zero: zeros fold away."""
    f.eval()
    graph, state = nnx.split(f)
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(state))))
    move = lambda a: a + 0.1 * jax.random.uniform(next(keys), a.shape)
    numbers = lambda a: jnp.issubdtype(a.dtype, jnp.floating)
    return nnx.merge(graph, jax.tree.map(lambda a: move(a) if numbers(a) else a, state))


def grad(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the gradient of a logit."""
    return lambda x, target: jax.grad(lambda x: f(x)[0, target[0]])(x)


def report(name: str, times: Times, gradient: Times) -> None:
    """Print one line."""
    seconds = "".join(f"{t:8.2f}" for t in times[:3])
    ratios = "".join(f"{a / b:7.1f}" for a, b in zip(times[:3], gradient[:3], strict=True))
    print(f"{name:16}{seconds}{ratios}{times.equations:8}", flush=True)


def profile(f: Callable[..., Any], *args: Any) -> None:
    """Print which functions the time of tracing goes to."""
    jax.clear_caches()
    with cProfile.Profile() as run:
        jax.jit(f).trace(*args)
    pstats.Stats(run).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
