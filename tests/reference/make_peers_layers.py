"""Write `peers_layers.npz`: layers and units by Captum.

    python tests/reference/make_peers_layers.py

in an environment with the project, its `test` group, torch 2.13.0 (CPU), torchvision and Captum
0.9.0. Networks, images and classes are those of `make_peers.py`, the first two images, float64, at
a ReLU of `vgg`; maps channels first.

`integrated_gradients` (Gauss-Legendre, 20 steps, from an image of 0.1), `conductance` (the gradient
at the beginning of each interval, of 1000), `internal` (Gauss-Legendre, 60 steps),
`gradient_x_activation`; `neuron_gradient` of channel 3 at row 2, column 1.
"""

import numpy as np
from captum.attr import (
    InternalInfluence,
    LayerConductance,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronGradient,
)
from torch_nets import HERE, load

if __name__ == "__main__":
    model, x, target = load("vgg")
    x, target, layer = x[:2], target[:2], model.relu3
    start = 0 * x + 0.1
    given = {"baselines": start, "target": target, "n_steps": 60}
    arrays = {
        "integrated_gradients": LayerIntegratedGradients(model, layer).attribute(
            x, baselines=start, target=target, n_steps=20
        ),
        "conductance": LayerConductance(model, layer).attribute(
            x, **given | {"n_steps": 1000}, method="riemann_trapezoid"
        ),
        "internal": InternalInfluence(model, layer).attribute(x, **given),
        "gradient_x_activation": LayerGradientXActivation(model, layer).attribute(x, target),
        "neuron_gradient": NeuronGradient(model, layer).attribute(x, (3, 2, 1)),
    }
    found = {name: a.detach().numpy() for name, a in arrays.items()}
    np.savez_compressed(HERE / "peers_layers.npz", **found)
