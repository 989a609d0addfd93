"""Write `peers_relative.npz`: RAP and RSP by their authors' code.

    git clone https://github.com/wjNam/Relative_Attributing_Propagation RAP
    git clone https://github.com/wjNam/Relative_Sectional_Propagation RSP
    PYTHONPATH=tests python tests/reference/make_relative.py RAP RSP

in an environment with the project, its `test` group, torch 2.13.0 (CPU) and matplotlib. The layers
of both are called where they lie, in float64, one image at a time (RSP's purge and the weights that
it finds sum over the batch), on `vgg` of `make_peers.py` with its first two images and classes, and
on `stack`, drawn here.

`{net}.rap` is the image's relevance, summing to the logit. `{net}.rsp.{start}`: from `{net}.start.`
at the output of the last convolution's ReLU to the image. `{start}` is `target`, as the authors'
`main.py` has it: activation times mean gradient, divided by its maximum; or `hostile`, as in its
`relative_GAM`: less the same of another class (`{net}.hostile`), the two signs apart scaled to a
sum of one, summed over channels, the signs scaled again to two and one, and spread evenly over the
channels.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from nets import NETS, STACK, Conv, Dense, Flatten, Layer, MaxPool, Relu
from torch import Tensor, nn
from torch_nets import HERE, load

Weights = dict[str, Tensor]


def layers_of(folder: str) -> ModuleType:
    """Import the authors' `modules/layers.py`."""
    spec = importlib.util.spec_from_file_location(folder, Path(folder) / "modules" / "layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(layer: Layer, layers: Any, weights: Weights) -> nn.Module:
    """Build one of the authors' layers."""
    match layer:
        case Conv(name, inputs, features, kernel, stride, ((padding, _), _)):
            made = layers.Conv2d(inputs, features, kernel, stride, padding)
        case Dense(name, inputs, features):
            made = layers.Linear(inputs, features)
        case MaxPool(_, size, stride):
            return layers.MaxPool2d(size, stride)
        case Relu():
            return layers.ReLU()
        case _:
            raise TypeError(f"no such layer: {layer}")
    made.weight.data = weights[f"{name}.weight"]
    made.bias.data = weights[f"{name}.bias"]
    return made


def build(net: Sequence[Layer], layers: Any, weights: Weights) -> Any:
    """Build a stack of the authors' layers."""
    return layers.Sequential(*(theirs(layer, layers, weights) for layer in net))


def cuts(net: Sequence[Layer]) -> tuple[int, int]:
    """Return where the ReLU of the last convolution ends, and where features are flattened."""
    flat = next(i for i, layer in enumerate(net) if isinstance(layer, Flatten))
    relus = [i for i, layer in enumerate(net[:flat]) if isinstance(layer, Relu)]
    return relus[-1] + 1, flat


def rap(net: Sequence[Layer], layers: Any, weights: Weights, x: Tensor, target: int) -> Tensor:
    """Run RAP on one image."""
    _, flat = cuts(net)
    features = build(net[:flat], layers, weights)
    classifier = build(net[flat + 1 :], layers, weights)
    maps = features(x)
    logits = classifier(maps.flatten(1))
    start = nn.functional.one_hot(torch.tensor([target]), logits.shape[1]).to(x)
    relevance = classifier.RAP_relprop(start)
    found = features.RAP_relprop(relevance.reshape(maps.shape)).detach()
    torch.testing.assert_close(found.sum(), logits[0, target], rtol=1e-9, atol=1e-9)
    return found


def cam(net: Sequence[Layer], layers: Any, weights: Weights, x: Tensor, target: int) -> Tensor:
    """Return activation times mean gradient at the features, divided by its maximum."""
    cut, flat = cuts(net)
    maps = build(net[:cut], layers, weights)(x).detach().requires_grad_()
    pooled = build(net[cut:flat], layers, weights)(maps)
    logits = build(net[flat + 1 :], layers, weights)(pooled.flatten(1))
    (gradient,) = torch.autograd.grad(logits[0, target], maps)
    found = (maps * gradient.mean((2, 3), keepdim=True)).detach()
    return found / found.max()


def relative(target: Tensor, hostile: Tensor) -> Tensor:
    """Set one class against another."""
    difference = target - hostile
    positive, negative = difference.clamp(min=0), difference.clamp(max=0)
    total = (positive / positive.sum() + negative / -negative.sum()).sum(1, keepdim=True)
    positive, negative = total.clamp(min=0), total.clamp(max=0)
    total = 2 * positive / positive.sum() + negative / -negative.sum()
    return total.expand_as(difference) / difference.shape[1]


def rsp(net: Sequence[Layer], layers: Any, weights: Weights, x: Tensor, start: Tensor) -> Tensor:
    """Run RSP on one image."""
    features = build(net[: cuts(net)[0]], layers, weights)
    features(x)
    return features.RSP_relprop(start).detach()


def draw() -> tuple[Weights, Tensor, Tensor]:
    """Draw the weights of `stack`, two images and their classes."""
    key = torch.Generator().manual_seed(5)
    weights = {}
    for layer in STACK:
        if isinstance(layer, Conv | Dense):
            kernel = (layer.kernel,) * 2 if isinstance(layer, Conv) else ()
            shape = (layer.features, layer.inputs, *kernel)
            scale = (2 / np.prod(shape[1:])) ** 0.5
            weights[f"{layer.name}.weight"] = scale * torch.randn(shape, generator=key)
            weights[f"{layer.name}.bias"] = 0.1 * torch.randn(layer.features, generator=key)
    # rounded to float32, so that tests can read them in either precision
    weights = {name: w.float().double() for name, w in weights.items()}
    x = torch.randn((2, 3, 16, 12), generator=key).float().double()
    return weights, x, torch.tensor([1, 4])


def make(folders: Sequence[str]) -> None:
    """Run everything and write the file."""
    rap_layers, rsp_layers = map(layers_of, folders)
    model, images, classes = load("vgg")
    weights = {name: p.detach() for name, p in model.state_dict().items()}
    drawn = draw()
    arrays = {f"net.stack.{name}": w.float() for name, w in drawn[0].items()}
    arrays |= {"stack.x": drawn[1].float(), "stack.target": drawn[2]}
    for name, net, (w, x, target) in (
        ("vgg", NETS["vgg"], (weights, images[:2], classes[:2])),
        ("stack", STACK, drawn),
    ):
        found: dict[str, list[Tensor]] = {}
        for image, t in zip(x[:, None], target.tolist(), strict=True):
            hostile = (t + 1) % 6
            own, other = (cam(net, rsp_layers, w, image, c) for c in (t, hostile))
            starts = {"target": own, "hostile": relative(own, other)}
            result = {"rap": rap(net, rap_layers, w, image, t), "hostile": torch.tensor([hostile])}
            for kind, start in starts.items():
                result[f"start.{kind}"] = start
                result[f"rsp.{kind}"] = rsp(net, rsp_layers, w, image, start)
            for key, a in result.items():
                found.setdefault(f"{name}.{key}", []).append(a)
        arrays |= {key: torch.cat(a) for key, a in found.items()}
    for key, a in arrays.items():
        if ".r" in key:
            print(f"{key}: sum {a.flatten(1).sum(1).tolist()}, max {a.abs().max():.1e}")
    np.savez_compressed(HERE / "peers_relative.npz", **{k: v.numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    make(sys.argv[1:])
