"""What does insertion cost beyond the forward passes it needs, and beside other libraries?

    git clone https://github.com/eclique/RISE
    python benchmarks/insertion_speed.py --rise RISE

One network with the same random weights in torch and in Flax, 224x224, 224 pixels a step: RISE's
own loop (a batch of images a step), Quantus' pixel flipping (the same batches; 192 steps, its time
scaled to 225) and `jaxattr.metrics.insertion`, beside the 225 forward passes alone, in batches of
the size that insertion takes, by `jax.jit` and as jaxattr lowers them. Each is run once in every
round, one after the other. Printed are medians over the rounds: of the seconds per image, and of
the ratio to the lowered forward passes of the same round. The curves of jaxattr and of RISE are
compared, too.

Needs torch and torchvision; what else is missing is left out. Keep the machine to yourself, or
compare on one core (`taskset --cpu-list 0 python ...`): where other work holds a core, torch's
threads wait for each other, and its forward passes took four times as long. One image, on one
core:

    |                                | s per image | forward passes' time |
    | forward passes, jax.jit        |       14.19 |                 0.97 |
    | forward passes, lowered        |       14.49 |                 1.00 |
    | jaxattr insertion              |       13.50 |                 0.93 |
    | RISE's loop, torch             |       14.75 |                 1.02 |
    | Quantus' pixel flipping, torch |       14.86 |                 1.02 |

The largest difference from RISE's curves was 2e-7.
"""

import os
import sys
import time
import types
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import scipy.ndimage
import torch
from flax import nnx

from jaxattr import lowered, metrics
from jaxattr.models import skeleton
from weights_conversion import convert

STEP, SIZE, CLASSES, CHUNK = 224, 224, 1000, 16
POINTS = SIZE * SIZE // STEP + 1
QUANTUS, FLIPS = "Quantus' pixel flipping, torch", 192


def networks(name: str) -> tuple[Any, Any]:
    """Build the network in torch and in Flax."""
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name).eval().requires_grad_(False)
    ours = skeleton(name)
    arrays = {key: value.numpy() for key, value in theirs.state_dict().items()}
    nnx.update(ours, convert(arrays, ours, flatten=ours.torch.flatten))
    return torch.nn.Sequential(theirs, torch.nn.Softmax(1)).eval(), ours


def ours(net: Any, x: np.ndarray, a: np.ndarray, target: np.ndarray) -> dict[str, Callable]:
    """Compile insertion, and the forward passes that it needs."""
    batches = -(-POINTS // CHUNK)
    images = np.repeat(x, -(-POINTS // batches), axis=0)

    def forward(read: Callable) -> Callable:
        program = jax.jit(lambda net, x: read(net)(x)).lower(net, images).compile()
        device = jax.device_put(images)
        return lambda: jax.block_until_ready([program(net, device) for _ in range(batches)])

    def insert(net: Any, x: Any, target: Any, a: Any) -> metrics.Curve:
        return metrics.insertion(net, step=STEP, chunk=CHUNK)(x, target, a)

    insertion = jax.jit(insert).lower(net, x, target, a).compile()
    return {
        "forward passes, jax.jit": forward(lambda net: net),
        "forward passes, lowered": forward(lambda net: lowered(net)),
        "jaxattr insertion": lambda: jax.block_until_ready(insertion(net, x, target, a)),
    }


def rise(folder: Path, net: Any, x: np.ndarray, a: np.ndarray) -> Callable:
    """Prepare RISE's own code, which asks for a GPU and a module that scipy has dropped."""
    sys.modules["scipy.ndimage.filters"] = types.ModuleType("filters")
    sys.modules["scipy.ndimage.filters"].__dict__["gaussian_filter"] = scipy.ndimage.gaussian_filter
    torch.Tensor.cuda = lambda self, *_: self
    sys.path.insert(0, str(folder))
    import evaluation  # type: ignore[reportMissingImports]

    evaluation.HW, evaluation.n_classes = SIZE**2, CLASSES
    evaluation.tqdm = lambda rounds, **_: rounds
    kernel = evaluation.gkern(11, 5)
    blur = lambda image: torch.nn.functional.conv2d(image, kernel, padding=5)
    game = evaluation.CausalMetric(net, "ins", STEP, blur)

    def run() -> np.ndarray:
        with redirect_stdout(StringIO()):
            return game.evaluate(torch.tensor(x).permute(0, 3, 1, 2).contiguous(), a, len(x)).T

    return run


def quantus(net: Any, x: np.ndarray, a: np.ndarray, target: np.ndarray) -> Callable:
    """Prepare Quantus' pixel flipping, which has no start and flips each color of a pixel apart.

    The features of a step must divide the number of pixels, so that 225 steps are out of reach.
    """
    from quantus import PixelFlipping  # type: ignore[reportMissingImports]

    game = PixelFlipping(features_in_step=3 * SIZE * SIZE // FLIPS, disable_warnings=True)
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    options = {"softmax": False, "batch_size": len(x)}
    return lambda: game(model=net, x_batch=x, y_batch=target, a_batch=a[:, None], **options)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rise", type=Path, help="a clone of RISE's repository")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    theirs, net = networks(options.model)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.images, SIZE, SIZE, 3)).astype(np.float32)
    a = rng.normal(size=(options.images, SIZE, SIZE)).astype(np.float32)
    with torch.inference_mode():
        target = theirs(torch.tensor(x).permute(0, 3, 1, 2)).argmax(1).numpy()
        timed = ours(net, x, a, target)
        if options.rise:
            timed["RISE's loop, torch"] = rise(options.rise, theirs, x, a)
            found, expected = timed["jaxattr insertion"]().curve, timed["RISE's loop, torch"]()
            print(f"largest difference from RISE's curves: {abs(found - expected).max():.1e}")
        try:
            timed[QUANTUS] = quantus(theirs, x, a, target)
        except ModuleNotFoundError as error:
            print(f"{error}: left out")
        for program in timed.values():
            program()
        rounds = [{k: seconds(run) for k, run in timed.items()} for _ in range(options.rounds)]
    for r in rounds:
        if QUANTUS in r:
            r[QUANTUS] *= POINTS / FLIPS
    print("| | s per image | forward passes' time |\n|---|---:|---:|")
    for name in timed:
        each = median(r[name] for r in rounds) / options.images
        ratio = median(r[name] / r["forward passes, lowered"] for r in rounds)
        print(f"| {name} | {each:.2f} | {ratio:.2f} |")


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
