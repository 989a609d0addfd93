"""Write `quantus.npz`: metrics by Quantus for a small network, images of one color and any maps.

    python tests/reference/make_quantus.py

in an environment with quantus 0.6.0, torch 2.13.0 (CPU) and scikit-image. Three images
`(3, 8, 8, 1)`, float32; the network is `sigmoid(x.ravel() @ weights + bias)`, its outputs stand for
scores without a softmax. `maps` are drawn; some metrics are given their magnitudes, divided by the
largest. `mask` is the truth, and `segments` are superpixels of the images (SLIC).

Quantus sees features where jaxattr sees pixels: with one color they are the same. Its "black" is
the smallest value of the image, so that 0 is given. `np.trapz`, which NumPy 2.4 has no more and
Quantus calls, is `np.trapezoid`. Its curves have no point for the unchanged image. `imputed` is
ROAD's without noise.
"""

from pathlib import Path

import numpy as np
import torch
from skimage.segmentation import slic

np.trapz = np.trapezoid

import quantus  # noqa: E402

SIZE, BATCH, CLASSES = 8, 3, 4


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 1, SIZE, SIZE)).astype(np.float32)
    weights = (rng.normal(size=(SIZE * SIZE, CLASSES)) / 8).astype(np.float32)
    bias = (1 + rng.random(CLASSES)).astype(np.float32)
    linear = torch.nn.Linear(SIZE * SIZE, CLASSES)
    linear.weight.data, linear.bias.data = torch.tensor(weights.T), torch.tensor(bias)
    net = torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.Sigmoid()).eval()
    target = np.array([0, 3, 1])
    maps = rng.normal(size=x.shape).astype(np.float32)
    positive = np.abs(maps) / np.abs(maps).max((1, 2, 3), keepdims=True)
    mask = np.zeros(x.shape, bool)
    for i in range(BATCH):
        mask[i, :, i : i + 4, 2:6] = True
    segments = np.stack([slic(np.moveaxis(a, 0, -1).astype(float), start_label=0) for a in x])
    plain = {"normalise": False, "disable_warnings": True}
    removed = plain | {"perturb_baseline": 0.0}
    signed = {
        "faithfulness_estimate": quantus.FaithfulnessEstimate(features_in_step=4, **removed),
        "region_perturbation": quantus.RegionPerturbation(
            patch_size=2, regions_evaluation=9, **removed
        ),
        "selectivity": quantus.Selectivity(patch_size=4, **removed),
        "irof": quantus.IROF(return_aggregate=False, **removed),
        "attribution_auc": quantus.AUC(**plain),
        "relevance_rank_accuracy": quantus.RelevanceRankAccuracy(**plain),
        "top_k_intersection": quantus.TopKIntersection(k=10, **plain),
    }
    unsigned = {
        "non_sensitivity": quantus.NonSensitivity(eps=0.02, abs=False, **removed),
        "relevance_mass_accuracy": quantus.RelevanceMassAccuracy(**plain),
        "sparseness": quantus.Sparseness(abs=False, **plain),
        "complexity": quantus.Complexity(abs=False, **plain),
    }
    found = {}
    for a, every in ((maps, signed), (positive, unsigned)):
        for name, metric in every.items():
            found[name] = metric(
                model=net,
                x_batch=x.copy(),
                y_batch=target,
                a_batch=a.copy(),
                s_batch=mask,
                softmax=False,
                batch_size=BATCH,
            )
    gone = np.flatnonzero(rng.random(SIZE * SIZE) < 0.6)
    imputed = [quantus.functions.perturb_func.noisy_linear_imputation(a, gone, noise=0) for a in x]
    tall = lambda a: np.moveaxis(np.asarray(a), 1, -1)
    np.savez_compressed(
        Path(__file__).parent / "quantus.npz",
        x=tall(x),
        target=target,
        weights=weights,
        bias=bias,
        maps=tall(maps),
        mask=mask[:, 0],
        segments=segments,
        gone=gone,
        imputed=tall(imputed),
        **{name: np.asarray(values, np.float32) for name, values in found.items()},
    )


if __name__ == "__main__":
    main()
