"""What does each method cost on a real classifier, in milliseconds and in forward passes?

    python benchmarks/methods.py [--only rise,xrai]

In every round each method and the forward pass are timed one after the other, for half a second or
one call, so that whatever slows the machine slows them alike. Printed, as rows of a Markdown table,
are medians over the rounds: of the time per image, and of the ratio to the forward pass of the same
round. The unit is the forward pass with the convolutions lowered by jaxattr, as inside the methods;
XLA's own is the first row.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from statistics import median

import jax
import numpy as np
from PIL import Image

from jaxattr import catalogue, lowered
from jaxattr.cli.inputs import find_photographs
from jaxattr.models import load

UNIT = "forward pass, lowered"


def programs(model: str, names: list[str], batch: int) -> Iterator[tuple[str, Callable]]:
    """Yield the forward pass as it stands and lowered, then each method, compiled and run once."""
    net, preprocess, _ = load(model)
    (cat,) = find_photographs(["skimage:chelsea"])
    x = np.stack([preprocess(Image.open(cat.path))] * batch)
    target, key = np.zeros(batch, int), jax.random.key(0)

    def compiled(function: Callable) -> Callable:
        program = jax.jit(function).lower(net, x).compile()
        jax.block_until_ready(program(net, x))
        return lambda: jax.block_until_ready(program(net, x))

    yield "forward pass, XLA's own", compiled(lambda net, x: net(x))
    yield UNIT, compiled(lambda net, x: lowered(net)(x))
    for name in names:
        method = catalogue.METHODS[name]
        counts = [f"{v} {k}" for k, v in method.options.items() if k in ("steps", "samples")]

        def attribute(net: Callable, x: jax.Array, name: str = name) -> jax.Array:
            return catalogue.build(catalogue.find(name), net)(x, target, key=key)

        yield ", ".join([f"`{name}`", *counts]), compiled(attribute)


def seconds(program: Callable, least: float = 0.5) -> float:
    """Return the mean time of as many calls as take `least` seconds."""
    start, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < least:
        program()
        calls += 1
    return passed / calls


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--only", default=",".join(catalogue.METHODS), help="methods by name")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timed = dict(programs(options.model, options.only.split(","), options.batch))
    rounds = [{name: seconds(p) for name, p in timed.items()} for _ in range(options.rounds)]
    print("| | ms per image | forward passes |\n|---|---:|---:|")
    for name in timed:
        each = 1000 * median(r[name] for r in rounds) / options.batch
        passes = median(r[name] / r[UNIT] for r in rounds)
        print(f"| {name} | {each:.0f} | {passes:.1f} |")


if __name__ == "__main__":
    main()
