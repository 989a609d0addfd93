"""Are Guided IG and Score-CAM faster than PAIR's and pytorch-grad-cam's, on the same work?

    pip install saliency==0.2.1 grad-cam==1.5.7
    OMP_NUM_THREADS=1 taskset --cpu-list 0 python benchmarks/paths_and_cams.py [--rounds 5]

The same network with the same random weights in torch and in Flax, images of 224x224, float32, one
or as many as `--batch` says (PAIR takes one at a time):

- Guided IG, 10 steps: PAIR's over torch's gradient, the same over jaxattr's, compiled and lowered,
  and ours;
- Score-CAM of a layer of 320 channels (EfficientNet-Lite0) or 256 (ResNet-50): pytorch-grad-cam, 16
  masked images at a time as it does by default; ours, in chunks of 16.

torch runs in its channels-last layout, the faster one. In every round each is run once, one after
the other. Printed are medians over the rounds of the processor's seconds, and of the peer's over
ours in the same round; then how alike the two maps are, as a correlation (in float32 Guided IG's
paths diverge). A peer that is missing is left out. Needs torch. On one core of a busy machine:

    | | CPU seconds | over jaxattr's |
    |---|---:|---:|
    | **efficientnet_lite0, guided_ig** | | |
    | PAIR, torch | 0.68 | 1.95 |
    | PAIR, jaxattr | 0.60 | 1.72 |
    | jaxattr | 0.35 | 1.00 |
    | **efficientnet_lite0, score_cam** | | |
    | pytorch-grad-cam | 10.16 | 2.07 |
    | jaxattr | 4.88 | 1.00 |
    | **resnet50, guided_ig** | | |
    | PAIR, torch | 2.73 | 1.15 |
    | PAIR, jaxattr | 2.94 | 1.25 |
    | jaxattr | 2.36 | 1.00 |

The network takes most of the time of both: the gradient is nine tenths of a step of Guided IG.
"""

import contextlib
import io
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from statistics import median

import jax
import numpy as np
import torch
from flax import nnx
from forward_and_saliency import NETWORKS
from torch import nn

import jaxattr
from jaxattr import lowered
from jaxattr.contract import class_gradient
from jaxattr.image.maps import resize, resize_aligned
from weights_conversion import convert

STEPS, CHUNK, TARGET = 10, 16, 3
LAYERS = {"efficientnet_lite0": "blocks/15", "resnet50": "layer1"}
Run = Callable[[], np.ndarray]


def networks(name: str) -> tuple[Callable, nn.Module]:
    """Build the network in Flax and in torch."""
    build, mirror = NETWORKS[name]
    torch.manual_seed(0)
    theirs = mirror().eval().requires_grad_(False)
    for parameter in theirs.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    ours = nnx.eval_shape(build)
    nnx.update(ours, convert({k: v.numpy() for k, v in theirs.state_dict().items()}, ours))
    return ours, theirs.to(memory_format=torch.channels_last)


def compiled(net: Callable, x: np.ndarray, explain: Callable) -> Callable:
    """Compile a method of the network, its weights an argument."""
    program = (
        jax.jit(lambda net, x: explain(net)(x, np.full(len(x), TARGET))).lower(net, x).compile()
    )
    return lambda x: np.asarray(program(net, x))


def guided_ig(net: Callable, theirs: nn.Module, x: np.ndarray, _: str) -> Iterator:
    """Yield Guided IG, the peer's first."""
    with contextlib.suppress(ImportError):
        from saliency import core as pair

        quantile = np.quantile  # NumPy 2.4 has no `interpolation=`
        np.quantile = lambda a, q, *, interpolation: quantile(a, q, method=interpolation)

        def through_torch(x: np.ndarray, **_: object) -> dict:
            images = torch.from_numpy(np.asarray(x, np.float32)).permute(0, 3, 1, 2)
            images.requires_grad_()
            (g,) = torch.autograd.grad(theirs(images)[:, TARGET].sum(), images)
            return {pair.INPUT_OUTPUT_GRADIENTS: g.permute(0, 2, 3, 1).numpy()}

        gradient = compiled(net, x[:1], lambda net: lambda x, t: class_gradient(lowered(net), x, t))

        def through_jax(x: np.ndarray, **_: object) -> dict:
            return {pair.INPUT_OUTPUT_GRADIENTS: gradient(np.asarray(x, np.float32))}

        for name, call in (("PAIR, torch", through_torch), ("PAIR, jaxattr", through_jax)):
            explain = pair.GuidedIG().GetMask
            yield name, lambda e=explain, c=call: np.stack([e(i, c, x_steps=STEPS) for i in x])
    ours = compiled(net, x, lambda net: jaxattr.guided_integrated_gradients(net, steps=STEPS))
    yield "jaxattr", lambda: ours(x)


def score_cam(net: Callable, theirs: nn.Module, x: np.ndarray, layer: str) -> Iterator:
    """Yield Score-CAM, the peer's first."""
    with contextlib.suppress(ImportError):
        from pytorch_grad_cam import ScoreCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        method = ScoreCAM(theirs, [theirs.get_submodule(layer.replace("/", "."))])
        image = torch.from_numpy(x).permute(0, 3, 1, 2)

        def peer() -> np.ndarray:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                return method(image, [ClassifierOutputTarget(TARGET)] * len(x))

        yield "pytorch-grad-cam", peer
    # masks with aligned corners, maps without, as the peer does
    enlarge = lambda a, size: (resize_aligned if a.ndim == 3 else resize)(a, size)
    options = {"layer": layer, "enlarge": enlarge, "chunk": CHUNK}
    ours = compiled(net, x, lambda net: jaxattr.score_cam(net, **options))
    yield "jaxattr", lambda: ours(x)[..., 0]


JOBS = {"guided_ig": guided_ig, "score_cam": score_cam}


def measure(runs: dict[str, Run], rounds: int) -> None:
    """Run them in turn and print a row of a Markdown table for each."""
    maps = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    for name, taken in times.items():
        ratio = median(t / ours for t, ours in zip(taken, times["jaxattr"], strict=True))
        alike = np.corrcoef(maps[name].ravel(), maps["jaxattr"].ravel())[0, 1]
        print(f"| {name} | {median(taken):.2f} | {ratio:.2f} | {alike:.3f} |", flush=True)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["efficientnet_lite0"])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((options.batch, 224, 224, 3), np.float32)
    print("| | CPU seconds | over jaxattr's | correlation |\n|---|---:|---:|---:|")
    for name in options.networks:
        net, theirs = networks(name)
        for job in options.jobs:
            print(f"| **{name}, {job}** | | | |")
            measure(dict(JOBS[job](net, theirs, x, LAYERS[name])), options.rounds)


if __name__ == "__main__":
    main()
