"""Are the methods that perturb images faster than Captum and TorchRay at the same work?

    git clone https://github.com/facebookresearch/TorchRay
    OMP_NUM_THREADS=1 taskset --cpu-list 0 python benchmarks/perturbations.py --torchray TorchRay

EfficientNet-Lite0 and ResNet-50 with random weights, the same in torch and in Flax, one image of
224x224, float32:

- occlusion by 49 windows of 56 pixels, every 28: Captum, one window at a time as it does by
  default, and 16 at a time; ours;
- RISE by 64 masks of 7x7 cells: TorchRay, 32 at a time as it does by default; ours;
- extremal perturbation for two areas, 4 steps: TorchRay; ours.

In every round each runs once, one after the other. Printed are medians over the rounds: CPU seconds
(so that other work on the machine matters little; keep to one core, since torch's threads wait for
each other where other work occupies one), their ratio to jaxattr's, and their ratio to the time of
the forward passes that the method must make in jaxattr: one for a window or a mask, three for a
forward and a backward pass, in batches of two, as jaxattr takes them. The maps of
occlusion are compared, and the first reward and penalty of extremal perturbation. A peer that is
missing is left out. Needs torch. `docs/speed.md` has the figures.
"""

import sys
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from forward_and_saliency import NETWORKS
from torch import nn

import jaxattr
from jaxattr import lowered
from weights_conversion import convert

SIZE, CHUNK, TARGET = 224, 2, 3
WINDOW, STRIDE, WINDOWS = 56, 28, 49
MASKS, CELLS = 64, 7
AREAS, STEPS = (0.1, 0.2), 4
WORK = {"occlusion": WINDOWS, "rise": MASKS, "extremal_perturbation": 3 * len(AREAS) * STEPS}
"""Forward passes that a method must make."""
UNIT = "one forward pass"

Run = Callable[[], Any]


def networks(name: str) -> tuple[nn.Module, nnx.Module]:
    """Build the network in torch and in Flax, with the same random weights."""
    build, mirror = NETWORKS[name]
    torch.manual_seed(0)
    theirs = mirror().eval().requires_grad_(False)
    for parameter in theirs.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    ours = nnx.eval_shape(build)
    nnx.update(ours, convert({k: v.numpy() for k, v in theirs.state_dict().items()}, ours))
    return theirs, ours


def mine(net: nnx.Module, x: np.ndarray) -> dict[str, Run]:
    """Compile jaxattr's methods, and the forward pass in chunks."""
    target, key = np.array([TARGET]), jax.random.key(0)

    def compiled(function: Callable, x: np.ndarray = x) -> Run:
        program = jax.jit(function).lower(net, x).compile()
        return lambda: jax.block_until_ready(program(net, x))

    def explain(method: Callable, **options: Any) -> Run:
        return compiled(lambda net, x: method(net, **options)(x, target, key=key))

    return {
        UNIT: compiled(lambda net, x: lowered(net)(x), x.repeat(CHUNK, 0)),
        "occlusion": explain(jaxattr.occlusion, window=WINDOW, stride=STRIDE, chunk=CHUNK),
        "rise": explain(jaxattr.rise, samples=MASKS, cells=CELLS, chunk=CHUNK),
        "extremal_perturbation": explain(
            jaxattr.extremal_perturbation_details, areas=AREAS, steps=STEPS
        ),
    }


def captum(net: nn.Module, x: torch.Tensor) -> dict[str, Run]:
    """Prepare Captum's occlusion."""
    try:
        from captum.attr import Occlusion
    except ModuleNotFoundError as error:
        print(f"{error}: left out")
        return {}
    shape, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)

    def run(at_once: int) -> Run:
        options = {"target": TARGET, "perturbations_per_eval": at_once}
        return lambda: Occlusion(net).attribute(x, shape, stride, **options)

    return {"Captum": run(1), "Captum, 16 at a time": run(16)}


def torchray(folder: Path | None, net: nn.Module, x: torch.Tensor) -> tuple[dict, dict]:
    """Prepare TorchRay's RISE and extremal perturbation."""
    sys.path.insert(0, str(folder))
    try:
        from torchray.attribution.extremal_perturbation import extremal_perturbation
        from torchray.attribution.rise import rise_class
    except ModuleNotFoundError as error:
        print(f"{error}: left out")
        return {}, {}
    masks = {"num_masks": MASKS, "num_cells": CELLS}
    areas = {"areas": list(AREAS), "max_iter": STEPS}
    return (
        {"TorchRay": lambda: rise_class(net, x, target=[TARGET], **masks)},
        {"TorchRay": lambda: extremal_perturbation(net, x, TARGET, **areas)},
    )


def differences(method: str, ours: Any, theirs: Any) -> Iterator[str]:
    """Say how far results differ that are not random."""
    if method == "occlusion":
        pairs = {"map": (ours[0, ..., 0], theirs[0, 0])}
    elif method == "extremal_perturbation":
        history, losses = theirs[1].numpy(), ours.losses
        pairs = {
            "first reward": (-losses["reward"][0, :, 0], history[:, 0, 0]),
            "first penalty": (-losses["area"][0, :, 0], history[:, 1, 0]),
        }
    else:
        pairs = {}
    for name, (a, b) in pairs.items():
        a, b = np.asarray(a), np.asarray(b)
        yield f"{method}: {name} differs by {abs(a - b).max() / abs(b).max():.0e}"


def seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--torchray", type=Path, help="a clone of TorchRay's repository")
    parser.add_argument("--models", default=",".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    x = np.random.default_rng(0).standard_normal((1, SIZE, SIZE, 3), np.float32)
    print("| network | method | | s | jaxattr's time | forward passes' time |")
    print("|---|---|---|---:|---:|---:|")
    told = []
    for name in options.models.split(","):
        theirs, net = networks(name)
        nchw = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
        ours = mine(net, x)
        unit = ours.pop(UNIT)
        rise, extremal = torchray(options.torchray, theirs, nchw)
        peers = {"occlusion": captum(theirs, nchw), "rise": rise, "extremal_perturbation": extremal}
        for method, run in ours.items():
            runs = {UNIT: unit, "jaxattr": run, **peers[method]}
            found = {kind: r() for kind, r in runs.items()}  # the first time warms up
            rounds = [{kind: seconds(r) for kind, r in runs.items()} for _ in range(options.rounds)]
            for kind in list(runs)[1:]:
                each = median(r[kind] for r in rounds)
                ratio = median(r[kind] / r["jaxattr"] for r in rounds)
                passes = median(r[kind] / (r[UNIT] / CHUNK * WORK[method]) for r in rounds)
                row = f"| {name} | {method} | {kind} | {each:.2f} | {ratio:.2f} | {passes:.2f} |"
                print(row, flush=True)
            for kind in list(runs)[2:3]:
                said = differences(method, found["jaxattr"], found[kind])
                told += [f"{name}, {line}" for line in said]
    print(*told, sep="\n")


if __name__ == "__main__":
    main()
