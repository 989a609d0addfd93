"""Write `peers_relevance_{vgg,resnet,lite}.npz`: relevance by zennit, TorchRay and Captum.

    python tests/reference/make_peers_relevance.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU), torchvision, captum 0.9.0,
zennit 0.5.1 and torchray 1.0.0.2. Networks, classes and the first two images are those of
`make_peers.py`, in float64; BatchNorm is folded into the convolution before it by torch's own
`fuse_conv_bn_eval`, so no canoniser is needed.

`lrp.*`: zennit, starting from the logit (not from 1); one rule at every convolution and dense
layer, or one of zennit's composites. Activations pass relevance on, max-pools send it to the
winner, average pools and residual sums (zennit's `Sum`) split it in proportion,
`R x_i / (sum x + 1e-6 sign)`. zennit keeps biases in the denominators; `*.nobias` is the same rule
with them set to zero. Every denominator but epsilon's own has `1e-6` added with its sign. The box
of `box` is the minimum and maximum of the two images. Float32 differs by at most 4e-4, so float64
is stable to 1e-12.

`excitation.*`: TorchRay, starting from 1, relevance summed over channels; `contrastive.*`: its
contrast taken at the layer named last, the result clamped at 0 by TorchRay. Residual sums are its
`EltwiseSum`. It assumes that what enters a layer is not negative, so it stops at activations;
`lite` is left out: TorchRay lets ReLU6's gradient gate the relevance, and the linear bottleneck is
not positive.

`deeplift.*`: Captum, rescale rule, from black and from `baseline`; complete to 1e-9. `average` has
every max-pool replaced by a 2x2 average pool: Captum's rule for max-pools is lost when a ReLU feeds
them, and drops overlapping windows. `vgg` has `max` too, a copying module between ReLU and pool
bringing the rule back. ReLU6 is added to Captum's table of non-linearities, which lacks it.
"""

from collections.abc import Callable

import numpy as np
import torch
from captum.attr import DeepLift
from captum.attr._core import deep_lift
from torch import Tensor, nn
from torch_nets import HERE, ResidualBlock, fold
from torch_nets import load as load_all
from torchray.attribution.excitation_backprop import (
    EltwiseSum,
    contrastive_excitation_backprop,
    excitation_backprop,
)
from zennit import composites, rules, types
from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite
from zennit.core import Composite, Hook
from zennit.layer import Sum

PASS = [
    (types.Activation, rules.Pass()),
    (Sum, rules.Norm()),
    (types.AvgPool, rules.Norm()),
]
EXCITATION = {  # layers to stop at, the last one being where the contrast is taken
    "vgg": ("relu1", "pool1", "relu3", "relu4"),
    "resnet": ("relu", "layer1.relu2", "layer2.relu1", "layer2.relu2"),
}


def load(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Read a network and its first two images and classes."""
    model, x, target = load_all(name, dtype)
    return model, x[:2], target[:2]


class Copy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


POOLS = {
    "average": lambda: nn.AvgPool2d(2),
    "max": lambda: nn.Sequential(Copy(), nn.MaxPool2d(2)),
}


class ZennitAdd(nn.Module):
    def __init__(self):
        super().__init__()
        self.sum = Sum()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(torch.stack((a, b), -1))


def with_sums(model: nn.Module, add: Callable[[], nn.Module]) -> nn.Module:
    """Replace the sums of residual blocks."""
    for part in model.modules():
        if isinstance(part, ResidualBlock):
            part.add = add()
    return model


def everywhere(rule: Hook, first: Hook | None = None) -> Composite:
    """Use one rule at every layer, another one at the first."""
    layers = [*PASS, (types.Linear, rule)]
    if first is None:
        return LayerMapComposite(layers)
    return SpecialFirstLayerMapComposite(layers, [(types.Linear, first)])


def lrp_composites(x: Tensor) -> dict[str, Composite]:
    """Return the settings by name."""
    low, high = x.min(), x.max()
    found = {}
    for suffix, zero in {"": None, ".nobias": "bias"}.items():
        zplus = rules.ZPlus(zero_params=zero)
        found |= {
            f"epsilon_0.1{suffix}": everywhere(rules.Epsilon(0.1, zero_params=zero)),
            f"gamma_0.25{suffix}": everywhere(rules.Gamma(0.25, zero_params=zero)),
            f"alpha2_beta1{suffix}": everywhere(rules.AlphaBeta(2, 1, zero_params=zero)),
            f"z_plus{suffix}": everywhere(zplus),
            f"w_square{suffix}": everywhere(rules.WSquare(zero_params=zero)),
            f"box_z_plus{suffix}": everywhere(zplus, rules.ZBox(low, high, zero_params=zero)),
            f"epsilon_plus{suffix}": composites.EpsilonPlus(0.1, zero_params=zero),
            f"epsilon_plus_flat{suffix}": composites.EpsilonPlusFlat(0.1, zero_params=zero),
            f"epsilon_alpha2_beta1{suffix}": composites.EpsilonAlpha2Beta1(0.1, zero_params=zero),
            f"epsilon_gamma_box{suffix}": composites.EpsilonGammaBox(
                low, high, epsilon=0.1, gamma=0.25, zero_params=zero
            ),
        }
    return found | {"flat": everywhere(rules.Flat())}


def lrp(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Run zennit."""
    model, x, target = load(name, dtype)
    model = with_sums(fold(model), ZennitAdd)
    found = {}
    for rule, composite in lrp_composites(x).items():
        image = x.clone().requires_grad_()
        with composite.context(model) as changed:
            logits = changed(image)
            start = nn.functional.one_hot(target, logits.shape[1]) * logits.detach()
            (found[f"lrp.{rule}"],) = torch.autograd.grad(logits, image, start)
    return found


def excitation(name: str) -> dict[str, Tensor]:
    """Run TorchRay."""
    model, x, target = load(name)
    model = with_sums(fold(model), EltwiseSum)
    found = {}
    *layers, contrast = EXCITATION[name]
    for layer in layers:
        found[f"excitation.{layer}"] = excitation_backprop(
            model, x.clone(), target, layer, resize=False
        )
        found[f"contrastive.{layer}.{contrast}"] = contrastive_excitation_backprop(
            model, x.clone().requires_grad_(), target, layer, contrast, resize=False
        )
    return found


def rescale(name: str) -> dict[str, Tensor]:
    """Run Captum's DeepLIFT from black and from the random baseline, and check completeness."""
    deep_lift.SUPPORTED_NON_LINEAR[nn.ReLU6] = deep_lift.nonlinear
    with np.load(HERE / f"peers_{name}.npz") as file:
        baseline = torch.from_numpy(file["baseline"][:2]).double()
    found = {}
    for pool in POOLS if name == "vgg" else ["average"]:
        model, x, target = load(name)
        for part in [part for part, m in model.named_children() if isinstance(m, nn.MaxPool2d)]:
            setattr(model, part, POOLS[pool]())
        for start, reference in {"zero": 0 * x, "random": baseline}.items():
            a = DeepLift(model).attribute(x, reference, target)
            change = (model(x) - model(reference)).gather(1, target[:, None])[:, 0]
            torch.testing.assert_close(a.flatten(1).sum(1), change, rtol=1e-9, atol=1e-9)
            found[f"deeplift.{pool}.{start}"] = a.detach()
    return found


def make(name: str) -> None:
    """Run everything on one network and write the file."""
    single, found = lrp(name, torch.float32), lrp(name, torch.float64)
    for rule, relevance in found.items():
        error = float((single[rule] - relevance).abs().max() / relevance.abs().max())
        print(f"{name} {rule}: float32 differs by {error:.1e}, max {relevance.abs().max():.1e}")
    if name in EXCITATION:
        found |= excitation(name)
    found |= rescale(name)
    np.savez_compressed(
        HERE / f"peers_relevance_{name}.npz", **{k: v.detach().numpy() for k, v in found.items()}
    )


if __name__ == "__main__":
    for network in ("vgg", "resnet", "lite"):
        make(network)
