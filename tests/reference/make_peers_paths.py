"""Write `peers_paths.npz`: path methods by PAIR saliency.

    python tests/reference/make_peers_paths.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU) and saliency 0.2.1, scipy
1.17, scikit-image 0.26. Networks, images and classes are those of `make_peers.py`, the first two
images, float64; maps channels first.

`{net}.blur_integrated_gradients.*`: at most 8 pixels of blur, 20 steps, the derivative along the
path by a difference of 0.01; `sqrt` spaces the squares of sigma evenly. Left end of each step.
`{net}.guided_integrated_gradients.*`: 30 steps from black, a quarter of the features at a time,
the number in the name being the distance allowed from the straight path. NumPy 2.4 has no
`quantile(interpolation=)`, which it calls; the script gives it back as `method=`.
`{net}.xrai.*`: from the given `base` map (input times gradient) and the given `segments`
`(N, H, W)`, overlapping boxes; a segment counts when it adds at least 5 pixels.
"""

import functools
from typing import Any

import numpy as np
import saliency.core as pair
import torch
from torch import Tensor, nn
from torch_nets import HERE, load

NETS = ("vgg", "resnet", "lite")
Arrays = dict[str, np.ndarray]


def old_quantile() -> None:
    """Let `np.quantile` take the argument it had before NumPy 2.4."""
    new = np.quantile

    @functools.wraps(new)
    def quantile(a: Any, q: Any, *, interpolation: Any = "linear", **kwargs: Any) -> Any:
        return new(a, q, **{"method": interpolation} | kwargs)

    np.quantile = quantile


def explained(model: nn.Module, target: int) -> Any:
    """Wrap a network as PAIR wants it: channels last, NumPy, gradients of one class."""

    def call(x: np.ndarray, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        images = torch.from_numpy(np.asarray(x)).permute(0, 3, 1, 2).requires_grad_()
        (g,) = torch.autograd.grad(model(images)[:, target].sum(), images)
        return {pair.INPUT_OUTPUT_GRADIENTS: g.permute(0, 2, 3, 1).numpy()}

    return call


def boxes(height: int, width: int) -> np.ndarray:
    """Draw overlapping segments that leave a corner uncovered."""
    random = np.random.default_rng(0)
    segments = np.zeros((12, height, width), bool)
    for segment in segments:
        top, left = random.integers(0, (height - 5, width - 5))
        bottom, right = random.integers((top + 3, left + 3), (height, width))
        segment[top:bottom, left:right] = True
    return segments


def paths(model: nn.Module, x: Tensor, target: Tensor) -> Arrays:
    """Run PAIR, image by image."""
    found: dict[str, list[np.ndarray]] = {}
    segments = boxes(*x.shape[2:])
    for image, label in zip(x.permute(0, 2, 3, 1).numpy(), target.tolist(), strict=True):
        call = explained(model, label)
        base = image * call(image[None])[pair.INPUT_OUTPUT_GRADIENTS][0]
        maps = {"xrai.base": base}
        for sqrt in (False, True):
            maps["blur_integrated_gradients" + ".sqrt" * sqrt] = pair.BlurIG().GetMask(
                image, call, max_sigma=8, steps=20, grad_step=0.01, sqrt=sqrt
            )
        for distance in (0.02, 0.2, 1.0):
            maps[f"guided_integrated_gradients.{distance}"] = pair.GuidedIG().GetMask(
                image, call, x_steps=30, fraction=0.25, max_dist=distance
            )
        for algorithm in ("full", "fast"):
            parameters = pair.XRAIParameters(algorithm=algorithm)
            parameters.experimental_params["min_pixel_diff"] = 5
            maps[f"xrai.{algorithm}"] = pair.XRAI().GetMask(
                image,
                call,
                segments=list(segments),
                base_attribution=base,
                extra_parameters=parameters,
            )[..., None]
        for key, value in maps.items():
            found.setdefault(key, []).append(np.moveaxis(value, -1, 0))
    return {key: np.stack(value) for key, value in found.items()} | {"xrai.segments": segments}


if __name__ == "__main__":
    old_quantile()
    arrays = {}
    for network in NETS:
        net, images, targets = load(network)
        maps = paths(net, images[:2], targets[:2])
        arrays |= {f"{network}.{key}": value for key, value in maps.items()}
    np.savez_compressed(HERE / "peers_paths.npz", **arrays)
