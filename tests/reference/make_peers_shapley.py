"""Write `peers_shapley.npz`: Shapley values and their kin by Captum, LIME by its authors.

    python tests/reference/make_peers_shapley.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU), torchvision, Captum 0.9.0,
scikit-learn 1.7 and lime 0.2.0.1. The network is `vgg` of `make_peers.py`, its first image and
class, float64; parts are `labels` `(H, W)`, and values `(M,)` are those of the parts.

`ablation`; `sampling`, from the given orders `orders` `(n, M)` and added up in float32; `kernel`,
from the given `coalitions` `(n, M)`, of which Captum's first two, everybody and nobody, have the
weight 1e6.
`lime`: the authors' regression of the class's probability on the same coalitions, the first one
everybody, by their kernel of width 0.25, ridge of 1, all parts.
`gradient_shap` `(H, W, C)` channels first: from the given `references` at `draws` `(2, n)`, numbers
of references and places on the way.
"""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import torch
from captum.attr import FeatureAblation, GradientShap, KernelShap, ShapleyValueSampling
from lime.lime_base import LimeBase
from torch import Tensor
from torch_nets import HERE, load

PARTS = 9


def parts(height: int, width: int) -> np.ndarray:
    """Draw three rows of three parts, of different sizes."""
    rows, columns = np.digitize(np.arange(height), (4, 11)), np.digitize(np.arange(width), (7, 9))
    return rows[:, None] * 3 + columns


def values(image: Tensor, labels: np.ndarray) -> np.ndarray:
    """Read the value of each part."""
    a = image[0, 0].detach().numpy()
    return np.array([a[labels == k][0] for k in range(PARTS)])


def main() -> Iterator[tuple[str, np.ndarray]]:
    model, x, target = load("vgg")
    x, target = x[:1], int(target[0])
    labels = parts(*x.shape[2:])
    yield "labels", labels
    random = np.random.default_rng(0)
    orders = np.stack([random.permutation(PARTS) for _ in range(6)])
    coalitions = random.integers(0, 2, (40, PARTS))
    coalitions[0] = 1
    yield "orders", orders
    yield "coalitions", coalitions
    given = {"target": target, "feature_mask": torch.from_numpy(labels)[None, None]}

    yield "ablation", values(FeatureAblation(model).attribute(x, **given), labels)

    sampling = ShapleyValueSampling(model)
    sampling.permutation_generator = lambda features, n: orders.tolist()
    yield "sampling", values(sampling.attribute(x, **given, n_samples=len(orders)), labels)

    kernel = KernelShap(model)
    ends = [np.ones(PARTS, int), np.zeros(PARTS, int)]

    def given_coalitions(*_: object, **__: object) -> Iterator[Tensor]:
        yield from (torch.from_numpy(z)[None] for z in [*ends, *coalitions[1:]])

    kernel.perturb_func = given_coalitions
    yield "kernel", values(kernel.attribute(x, **given, n_samples=len(coalitions) + 1), labels)

    there = torch.from_numpy(coalitions)[:, labels][:, None]
    probabilities = model(x * there).softmax(-1).numpy()
    distances = 1 - np.sqrt(coalitions.mean(1))
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    _, found, _, _ = base.explain_instance_with_data(
        coalitions, probabilities, distances, target, PARTS, feature_selection="none"
    )
    yield "lime", np.array([dict(found)[k] for k in range(PARTS)])

    key = torch.Generator().manual_seed(0)
    references = torch.randn((3, *x.shape[1:]), generator=key, dtype=x.dtype)
    numbers, places = random.integers(0, 3, 12), random.uniform(size=12)
    with (
        patch.object(np.random, "choice", lambda *_: numbers),
        patch.object(np.random, "uniform", lambda *_: places),
    ):
        explained = GradientShap(model).attribute(
            x, baselines=references, n_samples=12, stdevs=0.0, target=target
        )
    yield "references", references.numpy()
    yield "draws", np.stack([numbers, places])
    yield "gradient_shap", explained.detach().numpy()


if __name__ == "__main__":
    np.savez_compressed(HERE / "peers_shapley.npz", **dict(main()))
