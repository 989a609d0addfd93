"""Write `peers_papers.npz`: FullGrad and the insertion and deletion metrics by their authors' code.

    git clone https://github.com/idiap/fullgrad-saliency
    git clone https://github.com/eclique/RISE
    python tests/reference/make_peers_papers.py fullgrad-saliency RISE

in an environment with the project, its `test` group, torch 2.13.0 (CPU), torchvision and scipy. The
code of both is called where it lies; RISE's asks for a GPU and for a module that scipy has
dropped, so `cuda` is made to do nothing and the module's name is given back.

`{net}.fullgrad.*`: the first two images and classes of `make_peers.py`, float64, BatchNorm folded
into the convolutions. `map` is the saliency map (`|.|` scaled to [0, 1] over a layer's channels at
once, enlarged with aligned corners; dense layers left out), `input` the gradient times the image,
`bias.{layer}` bias times gradient at a layer; `input` and all the biases add up to the logit to
1e-12. `lite` is left out: a saturated ReLU6 adds a constant that the authors' code does not count.

`rise.*`: three 32x32 images, a network of an 8x8 average pool, a dense layer (`weight`, `bias`) and
a softmax, float32 as the code demands, explained by `saliency`. `{mode}.{step}` are the curves
`(3, n + 1)`, `auc.{mode}.{step}` their areas, `blurred` what insertion starts from, for `ins` and
`del`, one pixel row (32 pixels) or 100 pixels a step (the last step smaller).
"""

import sys
import types
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from torch import nn
from torch_nets import HERE, fold, load

SIZE = 32


def fullgrad(name: str) -> dict[str, np.ndarray]:
    """Run FullGrad on one network."""
    from saliency.fullgrad import FullGrad  # type: ignore[reportMissingImports]

    model, x, target = load(name)
    x, target = x[:2], target[:2]
    model = fold(model).requires_grad_(True)
    method = FullGrad(model, tuple(x.shape[1:]))
    gradient, biases = method.fullGradientDecompose(x.clone(), target)
    layers = [
        path for path, part in model.named_modules() if getattr(part, "weight", None) is not None
    ]
    parts = {"input": gradient * x}
    parts |= {f"bias.{path}": bias for path, bias in zip(layers, biases, strict=True)}
    total = sum(part.flatten(1).sum(1) for part in parts.values())
    torch.testing.assert_close(total, model(x).gather(1, target[:, None])[:, 0], rtol=1e-12, atol=0)
    parts["map"] = method.saliency(x.clone(), target)
    return {f"{name}.fullgrad.{key}": part.detach().numpy() for key, part in parts.items()}


def rise() -> dict[str, np.ndarray]:
    """Run the insertion and deletion games."""
    sys.modules["scipy.ndimage.filters"] = types.ModuleType("filters")
    sys.modules["scipy.ndimage.filters"].__dict__["gaussian_filter"] = scipy.ndimage.gaussian_filter
    torch.Tensor.cuda = lambda self, *_: self
    import evaluation  # type: ignore[reportMissingImports]

    evaluation.HW, evaluation.n_classes = SIZE**2, 4
    key = torch.Generator().manual_seed(0)
    x = torch.randn((3, 3, SIZE, SIZE), generator=key)
    x = x + nn.functional.interpolate(2 * torch.randn((3, 3, 4, 4), generator=key), (SIZE, SIZE))
    explanation = torch.randn((3, SIZE, SIZE), generator=key).numpy()
    dense = nn.Linear(3 * 4 * 4, 4).requires_grad_(False)
    dense.weight.copy_(0.4 * torch.randn(dense.weight.shape, generator=key))
    dense.bias.copy_(0.1 * torch.randn(dense.bias.shape, generator=key))
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), dense, nn.Softmax(1))
    kernel = evaluation.gkern(11, 5)

    def blur(image: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(image, kernel, padding=5)

    found: dict[str, Any] = {
        "x": x,
        "saliency": explanation,
        "weight": dense.weight,
        "bias": dense.bias,
        "probabilities": model(x),
        "blurred": blur(x),
    }
    for mode, start in {"ins": blur, "del": torch.zeros_like}.items():
        for step in (32, 100):
            metric = evaluation.CausalMetric(model, mode, step, start)
            curves = np.stack(
                [metric.single_run(x[i : i + 1], explanation[i]) for i in range(len(x))]
            )
            together = metric.evaluate(x.clone(), explanation, len(x))
            np.testing.assert_allclose(together.T, curves, rtol=1e-5)
            found[f"{mode}.{step}"] = curves
            found[f"auc.{mode}.{step}"] = np.array([evaluation.auc(curve) for curve in curves])
    return {f"rise.{key}": np.asarray(value) for key, value in found.items()}


if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    arrays = rise()
    torch.set_default_dtype(torch.float64)
    for network in ("vgg", "resnet"):
        arrays |= fullgrad(network)
    np.savez_compressed(HERE / "peers_papers.npz", **arrays)
