"""How much does LPR's MoRF curve depend on its hyper-parameters? The grid of the paper's Table 2.

    python benchmarks/lpr_grid.py DATA [--images 50] [--network cifar_resnet20]

DATA is as for `accuracy.py`. One hyper-parameter after another is varied, the others kept at their
defaults. Of each: the area under the MoRF curve (what is left of the predicted class's logit while
the 5 % most attributed pixels are zeroed; less is better) and LeRF (least attributed; more is
better), channels summed, as means over the images.
"""

from argparse import ArgumentParser
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from accuracy import sample
from tqdm import tqdm

from jaxattr import lpr, metrics

GRID = {
    "steps": (10, 20, 34, 50, 60),
    "gamma": (5.0, 10.0, 20.0, 40.0),
    "lambda_": (0.0, 0.1, 0.3, 1.0),
    "learning_rate": (0.05, 0.1, 0.2, 0.4),
    "alpha": (0.65, 0.75, 0.85),
    "beta": (0.15, 0.25, 0.35),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=50)
    options = parser.parse_args()
    (net, *_), x, _ = sample(options.data, options.network, options.images)
    target = net(x).argmax(-1)

    def scores(net, x, target, moving, *, steps):
        f = lambda x: net(x)
        a = lpr(f, steps=steps, **moving)(x, target)
        found = metrics.morf(f)(x, target, a), metrics.lerf(f)(x, target, a)
        return [metrics.mean(s.score, s.valid).mean for s in found]

    print(f"{options.network}, {len(x)} images\n\n| | | MoRF | LeRF |\n|---|---:|---:|---:|")
    programs = {}
    for name, values in GRID.items():
        for value in tqdm(values, desc=name, leave=False):
            steps = value if name == "steps" else 50
            moving = {} if name == "steps" else {name: jnp.float32(value)}
            key = (steps, *moving)
            run = programs.setdefault(key, jax.jit(partial(scores, steps=steps)))
            morf, lerf = run(net, x, target, moving)
            print(f"| {name.strip('_')} | {value:g} | {morf:.3f} | {lerf:.3f} |", flush=True)


if __name__ == "__main__":
    main()
