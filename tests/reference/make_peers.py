"""Write `peers_{vgg,resnet,lite}.npz`: three small networks and what Captum makes of them.

    python tests/reference/make_peers.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU) and captum 0.9.0. The
arrays are float64, in torch's layout. Captum's own float32 lies within 2e-6 of them: seeds are the
first for which it does, so that no gate flips by rounding and float32 results can be held to the
float64 arrays.

Captum is used where it is right. Its guided methods look for `nn.ReLU` and leave `nn.ReLU6` alone
without a word (the result is the plain gradient), so `lite` gets them by hooks of our own, which
equal Captum on the other two networks. Its trapezoid rule has weights that sum to (n - 1)/n; they
are kept as they are, under the name `captum_trapezoid`. It rounds all weights to float32, which
would leave an error of 2e-8; in float64 the script keeps it from that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeAlias
from unittest.mock import patch

import numpy as np
import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn
from torch_nets import HERE, draw

Arrays: TypeAlias = dict[str, Tensor]

STEPS = 20  # of integrated gradients
NOISE = 0.05  # standard deviation over the range of the image
QUADRATURES = {
    "left": "riemann_left",
    "right": "riemann_right",
    "middle": "riemann_middle",
    "captum_trapezoid": "riemann_trapezoid",
    "gauss_legendre": "gausslegendre",
}
CAM_LAYERS = {  # Guided Grad-CAM at the last one only
    "vgg": ("conv2", "relu2", "pool1", "relu3"),
    "resnet": ("relu", "layer1", "layer2.relu1", "layer2"),
    "lite": ("block1", "act1", "bn3", "act3"),
}
WINDOWS = {"occlusion.4.2": (4, 2), "occlusion.5.3": (5, 3)}  # window and stride, in pixels


def hooked(model: nn.Module, x: Tensor, target: Tensor, *, gate: bool) -> Tensor:
    """Guided backprop (`gate`) or the deconvnet rule at every ReLU and ReLU6, by module hooks.

    `max(g, 0) * 1[z > 0]` and `max(g, 0)`; for ReLU6 the gate is `1[0 < z < 6]`.
    """

    def before(_: nn.Module, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (g[0].clamp(min=0),)

    def after(_: nn.Module, __: object, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (g[0].clamp(min=0),)

    gates = [part for part in model.modules() if isinstance(part, nn.ReLU | nn.ReLU6)]
    handles = [
        part.register_full_backward_pre_hook(before)
        if gate
        else part.register_full_backward_hook(after)
        for part in gates
    ]
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    for handle in handles:
        handle.remove()
    return g


def gradients(model: nn.Module, x: Tensor, target: Tensor) -> Arrays:
    """Run the methods that follow the network's own gradient."""
    return {
        "saliency": Saliency(model).attribute(x, target, abs=False),
        "saliency.abs": Saliency(model).attribute(x, target, abs=True),
        "input_x_gradient": InputXGradient(model).attribute(x, target),
    }


@contextmanager
def unrounded(dtype: torch.dtype) -> Iterator[None]:
    """Let Captum keep the weights of a quadrature in this precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with patch.object(torch.Tensor, "float", lambda weights: weights.to(dtype)):
        yield
    torch.set_default_dtype(before)


def paths(name: str, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Arrays:
    """Run integrated gradients from black and from noise."""
    ig = IntegratedGradients(model)
    with unrounded(x.dtype):
        return {
            f"integrated_gradients.{rule}.{start}": ig.attribute(
                x, baselines, target, n_steps=STEPS, method=method
            )
            for rule, method in QUADRATURES.items()
            if rule == "gauss_legendre" or name == "vgg"
            for start, baselines in {"zero": 0 * x, "random": baseline}.items()
        }


def noise(model: nn.Module, x: Tensor, target: Tensor, draws: Tensor) -> Arrays:
    """Run SmoothGrad, its square and the variance over given noise of unit variance.

    `draws` has shape `(samples, C, H, W)`: each image meets the same ones, scaled by its range.
    """
    saliency = Saliency(model)
    sigma = NOISE * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    maps = torch.stack([saliency.attribute(x + sigma * draw, target, abs=False) for draw in draws])
    return {
        "smooth": maps.mean(0),
        "smooth_squared": maps.square().mean(0),
        "variance": maps.var(0, correction=0),
    }


def backprop(name: str, model: nn.Module, x: Tensor, target: Tensor) -> Arrays:
    """Run guided backprop and the deconvnet."""
    ours = {
        "guided_backprop": hooked(model, x, target, gate=True),
        "deconvnet": hooked(model, x, target, gate=False),
    }
    captum = {
        "guided_backprop": GuidedBackprop(model).attribute(x, target),
        "deconvnet": Deconvolution(model).attribute(x, target),
    }
    if name == "lite":
        plain = Saliency(model).attribute(x, target, abs=False)
        assert all(map(plain.equal, captum.values())), "Captum has learnt ReLU6: use it"
        return ours
    assert all(captum[key].equal(ours[key]) for key in ours)
    return captum


def cams(name: str, model: nn.Module, x: Tensor, target: Tensor, guided: Tensor) -> Arrays:
    """Run Grad-CAM with its ReLU at several layers: as it is, and enlarged bilinearly."""
    found = {}
    for path in CAM_LAYERS[name]:
        layer = model.get_submodule(path)
        cam = LayerGradCam(model, layer).attribute(x, target, relu_attributions=True)
        large = LayerAttribution.interpolate(cam, x.shape[2:], "bilinear")
        found |= {f"grad_cam_raw.{path}": cam, f"grad_cam.{path}": large}
    product = guided * large
    if name != "lite":
        product = GuidedGradCam(model, layer).attribute(x, target, interpolate_mode="bilinear")
        torch.testing.assert_close(product, guided * large)
    return found | {f"guided_grad_cam.{path}": product}


def occlusion(model: nn.Module, x: Tensor, target: Tensor) -> Arrays:
    """Run occlusion by black squares; a window that would leave the image is cut at its border."""
    channels = x.shape[1]
    return {
        name: Occlusion(model).attribute(
            x,
            sliding_window_shapes=(channels, size, size),
            strides=(channels, stride, stride),
            target=target,
        )[:, :1]
        for name, (size, stride) in WINDOWS.items()
    }


def run(name: str, model: nn.Module, given: Arrays, dtype: torch.dtype) -> Arrays:
    """Run everything in one precision."""
    model = model.to(dtype)
    x, baseline, draws = (given[key].to(dtype) for key in ("x", "baseline", "draws"))
    target = given["target"]
    guided = backprop(name, model, x, target)
    found = (
        {"logits": model(x)}
        | gradients(model, x, target)
        | paths(name, model, x, target, baseline)
        | noise(model, x, target, draws)
        | guided
        | cams(name, model, x, target, guided["guided_backprop"])
        | occlusion(model, x, target)
    )
    return {key: value.detach() for key, value in found.items()}


def error(a: Tensor, b: Tensor) -> float:
    """Return max|a - b| / max|b|."""
    return float((a.double() - b).abs().max() / b.abs().max())


def make(name: str) -> None:
    """Draw a network, run everything, write the file."""
    for seed in count():
        model, x = draw(name, seed)
        key = torch.Generator().manual_seed(seed)
        given = {
            "x": x,
            # image i is explained for its (i + 1)-th most likely class
            "target": model(x).argsort(1, descending=True).diagonal().clone(),
            "baseline": 0.5 * torch.randn(x.shape, generator=key),
            "draws": torch.randn((5, *x.shape[1:]), generator=key),
        }
        state = {f"net.{path}": value.clone() for path, value in model.state_dict().items()}
        single = run(name, model, given, torch.float32)
        double = run(name, model, given, torch.float64)
        errors = {path: error(single[path], double[path]) for path in double}
        dead = [path for path, value in double.items() if value.flatten(1).abs().amax(1).min() == 0]
        worst = max(errors, key=errors.__getitem__)
        print(f"{name} seed {seed}: float32 differs by {errors[worst]:.1e} ({worst}), zero {dead}")
        if errors[worst] < 2e-6 and not dead:
            break
    arrays = given | state | double
    arrays = {path: value for path, value in arrays.items() if "num_batches" not in path}
    np.savez_compressed(HERE / f"peers_{name}.npz", **{k: v.numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    for network in CAM_LAYERS:
        make(network)
