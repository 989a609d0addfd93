"""What `pytest -m "not slow"` leaves out: every law keeps a case that would catch its breaking."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

ALIKE = {
    "ablation_cam": "score_cam",
    "augmented": "smoothgrad",
    "deep_shap": "deeplift",
    "eigen_cam": "grad_cam",
    "eigen_grad_cam": "grad_cam",
    "feature_ablation": "occlusion",
    "finer_cam": "grad_cam",
    "gradient_shap": "integrated_gradients",
    "hires_cam": "grad_cam",
    "hsic_attribution": "occlusion",
    "kernel_shap": "occlusion",
    "layer_cam": "grad_cam",
    "lime": "occlusion",
    "shapley_cam": "grad_cam",
    "shapley_sampling": "occlusion",
    "sobol_attribution": "occlusion",
    "xgrad_cam": "grad_cam",
}
"""Methods that do to a network what another does, which stands for them where tests are many."""


def mostly_slow(values: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Return the values of a parametrized test, all but the `quick` ones marked as slow."""

    def slow(value: Any) -> Any:
        values = value if isinstance(value, tuple) else (value,)
        return pytest.param(*values, marks=pytest.mark.slow)

    return [value if value in quick else slow(value) for value in values]
