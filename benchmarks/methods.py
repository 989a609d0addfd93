"""What does each method cost on a real classifier, in milliseconds and in forward passes?

    python benchmarks/methods.py --rounds 15

In every round the model's own forward pass and each method are timed once, one after the other, so
that whatever slows the machine slows them alike. Printed, as rows of a Markdown table, are medians
over the rounds: of the time per image, and of the ratio to the forward pass of the same round.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from statistics import median

import jax
import numpy as np

from jaxattr import catalogue, with_rules
from jaxattr.inputs import open_photograph
from jaxattr.models import load


def programs(model: str, batch: int) -> Iterator[tuple[str, Callable]]:
    """Compile the forward pass as it stands, as jaxattr reads it, and each method."""
    net, preprocess, _ = load(model)
    x = np.stack([preprocess(open_photograph("skimage:chelsea"))] * batch)
    target, key = np.zeros(batch, int), jax.random.key(0)

    def compiled(function: Callable) -> Callable:
        program = jax.jit(function).lower(net, x).compile()
        jax.block_until_ready(program(net, x))
        return lambda: jax.block_until_ready(program(net, x))

    yield "forward pass", compiled(lambda net, x: net(x))
    yield "forward pass, as jaxattr reads it", compiled(lambda net, x: with_rules(net, {})(x))
    for name in catalogue.METHODS:
        chain = catalogue.find(name)
        yield (
            name,
            compiled(lambda net, x, chain=chain: catalogue.build(chain, net)(x, target, key=key)),
        )


def seconds(program: Callable) -> float:
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    timed = dict(programs(options.model, options.batch))
    rounds = [{name: seconds(p) for name, p in timed.items()} for _ in range(options.rounds)]
    print("| | ms per image | forward passes |\n|---|---:|---:|")
    for name in timed:
        each = 1000 * median(r[name] for r in rounds) / options.batch
        passes = median(r[name] / r["forward pass"] for r in rounds)
        print(f"| {name} | {each:.{0 if each >= 100 else 1}f} | {passes:.1f} |")


if __name__ == "__main__":
    main()
