"""Write `peers_sensitivity.npz`: Sobol and HSIC attribution by Xplique.

    python tests/reference/make_peers_sensitivity.py

in an environment of its own with xplique 2.0.2, tensorflow 2.21 (CPU), tensorflow-probability and
tf-keras. The model is `softmax(tanh(x @ weight))` of the pixels of the image `x` `(1, 8, 8, 1)`,
float32, its class 1. Maps `(4, 4)` are those of the cells, before they are enlarged.

`sobol`, 16 designs, whose variance Xplique divides by 15; `hsic`, 64 masks, the kernel's width the
median of the probability.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from xplique.attributions import HsicAttributionMethod, SobolAttributionMethod

HERE = Path(__file__).parent


def cells(method: SobolAttributionMethod | HsicAttributionMethod, x: np.ndarray) -> np.ndarray:
    """Return what a method estimates for each cell."""
    kept: list[np.ndarray] = []
    estimate = method.estimator

    def keep(masks: tf.Tensor, outputs: tf.Tensor, designs: int) -> tf.Tensor:
        kept.append(estimate(masks, outputs, designs).numpy())
        return kept[-1]

    method.estimator = keep
    method.explain(x, np.eye(3, dtype="float32")[[1]])
    return kept[0]


def main() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 8, 8, 1)).astype("float32")
    weight = random.normal(size=(64, 3)).astype("float32")
    inputs = tf.keras.Input((8, 8, 1))
    hidden = tf.keras.layers.Flatten()(inputs)
    dense = tf.keras.layers.Dense(3, activation="tanh", use_bias=False)
    model = tf.keras.Model(inputs, tf.keras.layers.Softmax()(dense(hidden)))
    dense.set_weights([weight / 4])
    arrays = {"x": x, "weight": weight / 4}
    methods = {
        "sobol": SobolAttributionMethod(model, grid_size=4, nb_design=16),
        "hsic": HsicAttributionMethod(model, grid_size=4, nb_design=64),
    }
    for name, method in methods.items():
        arrays[name] = cells(method, x).reshape(4, 4)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(HERE / "peers_sensitivity.npz", **main())
