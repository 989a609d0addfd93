"""Write `peers_cams.npz`: class activation maps by pytorch-grad-cam.

    python tests/reference/make_peers_cams.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU), torchvision and grad-cam
1.5.7. Networks, images and classes are those of `make_peers.py`, the first two images, float64;
maps `(2, 1, h, w)` at the layer's own size, before negative values are dropped.

`{net}.{layer}.hires_cam`, `.layer_cam`, `.xgrad_cam`, `.eigen_cam`, `.eigen_grad_cam`,
`.finer_cam`, `.ablation_cam`. Its XGrad-CAM has 1e-7 in the denominator. Its eigen maps subtract
each channel's mean first, have a sign by chance and are rounded to float32. Its Finer-CAM compares
with the three classes nearest to the given one, which it is told here, and has 1e-9 in the
denominator. Its Ablation-CAM divides the weights by the logit, which is undone here, and rounds
logits to float32; the layers are ReLUs, whose channels it sets to 0.
`square.shapley_cam`: ShapleyCAM at the first ReLU of `vgg` cut there, its value squared, averaged
and weighted by `square.weight`, so that there is a second derivative.
"""

from collections.abc import Iterator

import numpy as np
import torch
from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    HiResCAM,
    LayerCAM,
    ShapleyCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from torch import Tensor, nn
from torch_nets import HERE, load

LAYERS = {"vgg": ("relu2", "relu3"), "lite": ("act3",)}
CAMS = {
    "hires_cam": HiResCAM,
    "layer_cam": LayerCAM,
    "xgrad_cam": XGradCAM,
    "eigen_cam": EigenCAM,
    "eigen_grad_cam": EigenGradCAM,
    "finer_cam": GradCAM,
    "ablation_cam": AblationCAM,
    "shapley_cam": ShapleyCAM,
}


def image(name: str, model: nn.Module, x: Tensor, targets: list, layer: nn.Module) -> np.ndarray:
    """Return a map at the layer's size."""
    cam = CAMS[name](model, [layer])
    kept: list[np.ndarray] = []
    inner = cam.get_cam_image

    def keep(*args: object, **kwargs: object) -> np.ndarray:
        kept.append(inner(*args, **kwargs))
        return kept[-1]

    cam.get_cam_image = keep
    cam(x, targets)
    cam.activations_and_grads.release()
    return np.asarray(kept[0], float)[:, None]


def similar(logits: Tensor, target: int) -> FinerWeightedTarget:
    """Compare a class with the three nearest ones."""
    order = (logits - logits[target]).abs().argsort()
    return FinerWeightedTarget(target, [int(i) for i in order if i != target][:3], 1.0)


def cams() -> Iterator[tuple[str, np.ndarray]]:
    for net, layers in LAYERS.items():
        model, x, target = load(net)
        x, classes = x[:2], [int(t) for t in target[:2]]
        model.requires_grad_(True)
        logits = model(x).detach()
        finer = [similar(z, t) for z, t in zip(logits, classes, strict=True)]
        plain = [ClassifierOutputTarget(t) for t in classes]
        for path in layers:
            for name in list(CAMS)[:-1]:
                targets = finer if name == "finer_cam" else plain
                found = image(name, model, x, targets, model.get_submodule(path))
                if name == "ablation_cam":
                    found = found * logits[[0, 1], classes].numpy().reshape(2, 1, 1, 1)
                yield f"{net}.{path}.{name}", found


class Square(nn.Module):
    """Square, average over positions, weight."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return (x**2).mean((2, 3)) @ self.weight


def square() -> Iterator[tuple[str, np.ndarray]]:
    model, x, _ = load("vgg")
    weight = torch.randn((8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = nn.Sequential(model.conv1, model.relu1, Square(weight)).requires_grad_(True)
    targets = [ClassifierOutputTarget(t) for t in (2, 0)]
    yield "square.weight", weight.numpy()
    yield "square.shapley_cam", image("shapley_cam", model, x[:2], targets, model[1])


if __name__ == "__main__":
    np.savez_compressed(HERE / "peers_cams.npz", **dict(cams()), **dict(square()))
