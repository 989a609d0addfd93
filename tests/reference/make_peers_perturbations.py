"""Write `peers_perturbations.npz`: CAM weights by pytorch-grad-cam, perturbations by TorchRay.

    python tests/reference/make_peers_perturbations.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU), torchvision,
grad-cam 1.5.7 and torchray 1.0.0.2. Networks, images and classes are those of `make_peers.py`, the
first two images; maps channels first.

`{net}.grad_cam_plus_plus.{layer}` and `{net}.score_cam.{layer}`: the weights `(2, C)` of the
layer's channels in float64 and, under `.map`, `max(0, sum_c w_c A_c)` at the layer's own size (the
library's own maps are shifted, scaled to [0, 1] and rounded to float32). Its Grad-CAM++ adds 1e-6
to the denominator and takes the gradient of the logit, not of its exponential. Its Score-CAM scales
each enlarged channel (with aligned corners) to [0, 1] with 1e-8 in the denominator, and takes the
softmax over channels of the masked images' logits, which it rounds to float32.

`rise.vgg`: from the given `rise.masks` `(40, H, W)`, float64: the mean over masks of mask times the
*sigmoid* of the class's logit, not divided by the masks' mean.

`extremal.*` on `vgg`, float32 (TorchRay's blur knows no other): `pyramid` of one image, blurred by
up to 20 pixels with zero padding, or faded; 25 steps, a parameter every 4 pixels, sigma 8: the
masks for areas 0.1 and 0.3 `(2, H, W)` before the last step, and `history` `(2, 2, 25)`, for each
area the reward and the penalty (a negative number); jitter flips every second step, from the first.
The parameters begin with the given `extremal.start` `(2, h, w)`: TorchRay begins with ones, where
so many pixels of a mask are equal that rounding decides which are sorted first (1e-7 in the start
changes its curves by 4e-3). Its contrastive reward subtracts, from the mean over areas of the
class's logit, the largest other one: right in sum over areas only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from pytorch_grad_cam import GradCAMPlusPlus, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch_nets import HERE, load
from torchray.attribution.extremal_perturbation import (
    BLUR_PERTURBATION,
    DUAL_VARIANT,
    FADE_PERTURBATION,
    PRESERVE_VARIANT,
    Perturbation,
    contrastive_reward,
    extremal_perturbation,
    simple_reward,
)
from torchray.attribution.rise import rise_class

CAM_LAYERS = {"vgg": ("relu2", "relu3"), "resnet": ("layer1", "layer2"), "lite": ("act1", "act3")}
SETTINGS = {
    "blur": (BLUR_PERTURBATION, PRESERVE_VARIANT, simple_reward, False),
    "blur_jitter": (BLUR_PERTURBATION, PRESERVE_VARIANT, simple_reward, True),
    "fade": (FADE_PERTURBATION, PRESERVE_VARIANT, simple_reward, False),
    "fade_dual": (FADE_PERTURBATION, DUAL_VARIANT, simple_reward, False),
    "fade_contrastive": (FADE_PERTURBATION, PRESERVE_VARIANT, contrastive_reward, False),
}


def cams(name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Run Grad-CAM++ and Score-CAM."""
    model, x, target = load(name)
    x, targets = x[:2], [ClassifierOutputTarget(int(t)) for t in target[:2]]
    model.requires_grad_(True)
    for path in CAM_LAYERS[name]:
        layer = model.get_submodule(path)
        for key, method in {"grad_cam_plus_plus": GradCAMPlusPlus, "score_cam": ScoreCAM}.items():
            cam = method(model, [layer])
            cam(x, targets)
            activations, gradients = (
                [part.detach().numpy() for part in parts]
                for parts in (
                    cam.activations_and_grads.activations,
                    cam.activations_and_grads.gradients,
                )
            )
            activations, gradients = activations[0], gradients[0] if gradients else None
            weights = cam.get_cam_weights(x, layer, targets, activations, gradients)
            cam.activations_and_grads.release()
            image = np.maximum((weights[:, :, None, None] * activations).sum(1, keepdims=True), 0)
            yield f"{name}.{key}.{path}", weights
            yield f"{name}.{key}.{path}.map", image


def rise() -> Iterator[tuple[str, np.ndarray]]:
    """Run RISE with given masks."""
    torch.set_default_dtype(torch.float64)
    model, x, target = load("vgg")
    key = torch.Generator().manual_seed(0)
    grid = (torch.rand((40, 1, 5, 5), generator=key) < 0.5).double()
    masks = nn.functional.interpolate(grid, x.shape[2:], mode="bilinear")
    yield "rise.masks", masks[:, 0].numpy()
    yield (
        "rise.vgg",
        rise_class(model, x[:2], target=target[:2], num_masks=40, filter_masks=masks).numpy(),
    )
    torch.set_default_dtype(torch.float32)


@contextmanager
def started(parameters: Tensor) -> Iterator[None]:
    """Let TorchRay begin with given parameters, `(areas, 1, h, w)`, where it takes ones."""
    ones = torch.ones
    mine = lambda *shape: parameters.clone() if shape == parameters.shape else ones(*shape)
    with patch.object(torch, "ones", mine):
        yield


def extremal() -> Iterator[tuple[str, np.ndarray]]:
    """Run extremal perturbation on one image."""
    model, x, target = load("vgg", torch.float32)
    x, label = x[:1], int(target[0])
    start = 0.2 + 0.7 * torch.rand((2, 1, 4, 5), generator=torch.Generator().manual_seed(0))
    yield "extremal.start", start[:, 0].numpy()
    for kind in (BLUR_PERTURBATION, FADE_PERTURBATION):
        yield f"extremal.pyramid.{kind}", Perturbation(x, type=kind).pyramid.numpy()
    for key, (kind, variant, reward, jitter) in SETTINGS.items():
        with started(start):
            masks, history = extremal_perturbation(
                model,
                x,
                label,
                areas=[0.1, 0.3],
                perturbation=kind,
                max_iter=25,
                step=4,
                sigma=8,
                jitter=jitter,
                variant=variant,
                reward_func=reward,
            )
        yield f"extremal.{key}", masks[:, 0].numpy()
        yield f"extremal.{key}.history", history.numpy()


if __name__ == "__main__":
    arrays: dict[str, np.ndarray | Tensor] = {}
    for network in CAM_LAYERS:
        arrays |= dict(cams(network))
    arrays |= dict(rise()) | dict(extremal())
    np.savez_compressed(HERE / "peers_perturbations.npz", **arrays)
