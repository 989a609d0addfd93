"""What does each composite of LRP cost, in forward passes, and how long does it compile?

    python benchmarks/relevance.py --model resnet50

Weights are random: the cost does not depend on them. Timed as in `methods.py`: in every round each
program after the other, and medians over the rounds of the ratio to the forward pass.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable
from statistics import median

import jax
import numpy as np
from flax import nnx
from methods import seconds

from jaxattr import conservation, guided_backprop, lowered, lrp, models
from jaxattr.rules import composites
from jaxattr.rules import lrp as rules

COMPOSITES = {
    "epsilon everywhere": composites.uniform(rules.epsilon()),
    "epsilon plus (the default)": composites.epsilon_plus(),
    "epsilon plus flat": composites.epsilon_plus_flat(),
    "epsilon gamma box": composites.epsilon_gamma_box(-3.0, 3.0),
    "epsilon alpha 2 beta 1 flat": composites.epsilon_alpha2_beta1_flat(),
}


def methods() -> dict[str, Callable]:
    """Return functions of a classifier by name."""
    found = {"forward pass": lambda f: lambda x, target: lowered(f)(x)}
    found["guided backprop"] = guided_backprop
    for name, composite in COMPOSITES.items():
        found[name] = lambda f, c=composite: lrp(f, composite=c)
    found["epsilon plus, conserve"] = lambda f: lrp(f, conserve=True)
    found["conservation, epsilon plus"] = conservation
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    net = getattr(models, options.model)(rngs=nnx.Rngs(0))
    net.eval()
    graph, state = nnx.split(net)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, options.size, options.size, 3), np.float32)
    target = np.zeros(1, int)
    programs, compiling = {}, {}
    for name, method in methods().items():
        explain = lambda state, x, m=method: m(lambda x: nnx.merge(graph, state)(x))(x, target)
        start = time.perf_counter()
        program = jax.jit(explain).lower(state, x).compile()
        compiling[name] = time.perf_counter() - start
        programs[name] = lambda p=program: jax.block_until_ready(p(state, x))
        programs[name]()
    timed = lambda: {name: seconds(p, least=0.1) for name, p in programs.items()}
    rounds = [timed() for _ in range(options.rounds)]
    print(f"| {options.model} | forward passes | ms | s to compile |\n|---|---:|---:|---:|")
    for name in programs:
        passes = median(r[name] / r["forward pass"] for r in rounds)
        each = 1000 * median(r[name] for r in rounds)
        print(f"| {name} | {passes:.1f} | {each:.0f} | {compiling[name]:.0f} |")


if __name__ == "__main__":
    main()
