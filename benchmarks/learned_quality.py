"""Do DMBP and LPR rank pixels better than the plain methods, and which reading of them is best?

    python benchmarks/learned_quality.py DATA [--network cifar_resnet20] [--images 100] [--only X]

DATA is as for `accuracy.py`. Of every method: insertion (area under the curve of the true class's
probability, 33 points; the blurred start as RISE has it) with the channels of a pixel summed, their
positive parts summed, and their magnitudes summed; and what is left of the true class's activation
while the 5 % most (MoRF, less is better) and least (LeRF, more is better) attributed pixels are
zeroed, channels summed. Means over the images, the standard error of the first insertion score
behind it.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from accuracy import cifar10, photographs
from tqdm import tqdm

import jaxattr
from jaxattr import metrics
from jaxattr.dmbp import positive, positive_negative
from jaxattr.lpr import probability
from jaxattr.models import load

dmbp, lpr = jaxattr.dmbp, jaxattr.lpr


def times_image(method: Callable) -> Callable:
    """Multiply a method's maps by the image."""

    def make(f: Callable) -> Callable:
        attribute = method(f)
        return lambda x, target, *, key=None: x * attribute(x, target, key=key)

    return make


METHODS = {
    "random": lambda f: lambda x, target, *, key=None: jax.random.normal(key, x.shape),
    "gradient * input (ND)": jaxattr.input_x_gradient,
    "guided backprop * input": times_image(jaxattr.guided_backprop),
    "SmoothGrad * input": times_image(lambda f: jaxattr.smooth(jaxattr.saliency(f), samples=20)),
    "Grad-CAM": jaxattr.grad_cam,
    "DMBP, positive": partial(dmbp, steps=50, loss=positive),
    "DMBP, positive-negative": partial(dmbp, steps=50, loss=positive_negative),
    "DMBP, 1 step": partial(dmbp, steps=1),
    "DMBP, 3 steps": partial(dmbp, steps=3),
    "DMBP, 10 steps": partial(dmbp, steps=10),
    "DMBP, 50 steps": partial(dmbp, steps=50),
    "DMBP, 200 steps": dmbp,
    "DMBP, literal (bias terms), 50 steps": partial(dmbp, steps=50, bias=True),
    "DMBP, literal (bias terms), 200 steps": partial(dmbp, bias=True),
    "DMBP, masks per channel, 50 steps": partial(dmbp, steps=50, per_channel=True),
    "DMBP, initial theta 2, 50 steps": partial(dmbp, steps=50, init=2.0),
    "DMBP, learning rate 0.04, 50 steps": partial(dmbp, steps=50, learning_rate=0.04),
    "LPR": lpr,
    "LPR, 15 steps": partial(lpr, steps=15),
    "LPR, probability": partial(lpr, score=probability),
    "LPR, no baseline": partial(lpr, baseline=False),
    "LPR, no baseline, gate": partial(lpr, baseline=False, gate=True),
    "LPR, per channel": partial(lpr, per_channel=True),
    "LPR, sign-aware off": partial(lpr, sign_aware=False),
    "LPR, smoothed masks": partial(lpr, smoothing=1.0),
}
REDUCTIONS = (jaxattr.heatmap, metrics.positive_sum, metrics.magnitude_sum)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--only", help="methods whose names contain this")
    options = parser.parse_args()
    cifar = options.network.startswith("cifar")
    files = sorted((options.data / "cifar_resnets").glob(f"{options.network[6:]}-*.th"))
    net, preprocess, _ = load(options.network, path=files[0] if cifar else None)
    source = cifar10(options.data) if cifar else photographs(options.data)
    every = 10_000 // options.images if cifar else 700 // options.images
    labelled = list(islice(source, 0, every * options.images, every))
    x = np.stack([preprocess(image) for image, _ in labelled])
    target = np.array([label for _, label in labelled])
    step = x.shape[1] * x.shape[2] // 32

    def scores(make: Callable, net: Callable, x: jax.Array, target: jax.Array) -> list[jax.Array]:
        f = lambda x: net(x)
        a = make(f)(x, target, key=jax.random.key(0))
        found = [metrics.insertion(f, step=step, reduce=r)(x, target, a).score for r in REDUCTIONS]
        return [*found, metrics.morf(f)(x, target, a).score, metrics.lerf(f)(x, target, a).score]

    print(f"{options.network}, {len(x)} images")
    print("| | insertion: sum | positive | magnitude | MoRF | LeRF |\n|---|---|---|---|---|---|")
    for name, make in METHODS.items():
        if options.only and options.only not in name:
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
