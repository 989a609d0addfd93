"""How many steps does DMBP need, and does another optimizer need fewer?

    python benchmarks/learned_steps.py DATA OUT.png [--network cifar_resnet20] [--images 16]

DATA is as for `accuracy.py`. The objective is multilinear in the masks: with all but one layer's
fixed, the best masks of that layer are zeros and ones, given by the sign of the gradient. So
RMSProp, the paper's choice, is compared with Adam and with descent along the sign
(`optax.sign_sgd`), which moves towards those best masks in every layer at once. All but one begin
with masks of one half; that one with `jaxattr.methods.dmbp.guided`, which visits the layers from
the logit down.

Drawn, and printed at some steps, is the median over images of `y- - y+ + |y~|` in units of the
logit; then the first step at which the median is as low as RMSProp's after 200.
"""

from argparse import ArgumentParser
from pathlib import Path

import jax
import numpy as np
import optax
from accuracy import sample
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxattr
from jaxattr.methods.dmbp import guided

STEPS = 200
SHOWN = (1, 3, 10, 20, 50, 100, 200)
PAPER = "RMSProp 0.01 (paper)"
GUIDED = "RMSProp 0.01 from guided masks"
OPTIMIZERS = {
    PAPER: None,
    GUIDED: None,
    "RMSProp 0.04": optax.rmsprop(0.04, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    "RMSProp 0.1": optax.rmsprop(0.1, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    "Adam 0.1": optax.adam(0.1, eps=1e-30),
    "Adam 0.3": optax.adam(0.3, eps=1e-30),
    "sign 0.1": optax.sign_sgd(0.1),
    "sign 0.3": optax.sign_sgd(0.3),
    "sign 1": optax.sign_sgd(1.0),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    (net, *_), x, _ = sample(options.data, options.network, options.images)
    logits = net(x)
    target, size = logits.argmax(-1), np.asarray(logits.max(-1))[:, None]
    curves = {}
    for name, optimizer in (bar := tqdm(OPTIMIZERS.items())):
        bar.set_description(name)

        @jax.jit
        def losses(net, x, target, optimizer=optimizer, init=guided if name == GUIDED else 0.0):
            f = lambda x: net(x)
            explain = jaxattr.dmbp_details(f, steps=STEPS, optimizer=optimizer, init=init)
            return explain(x, target).losses

        curves[name] = np.median(np.asarray(losses(net, x, target)) / size, 0)
    print(f"| step | {' | '.join(map(str, SHOWN))} | as low as {PAPER} after {STEPS} |")
    print(f"|---|{'---:|' * (len(SHOWN) + 1)}")
    for name, curve in curves.items():
        low = np.flatnonzero(curve <= curves[PAPER][-1])
        cells = [f"{curve[i - 1]:.3g}" for i in SHOWN]
        print(f"| {name} | {' | '.join(cells)} | {low[0] + 1 if len(low) else 'never'} |")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panel = figure.subplots()
    for name, curve in curves.items():
        panel.plot(np.arange(1, STEPS + 1), curve, label=name)
    panel.set(xscale="log", yscale="symlog", xlabel="step", ylabel="objective / logit")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8)
    figure.savefig(options.out, dpi=120)


if __name__ == "__main__":
    main()
