"""What an option means, whatever takes it: chunks and progress, baselines, first parameters."""

import inspect
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from speed import mostly_slow

import jaxattr
from jaxattr import metrics


def tiny(x: jax.Array) -> jax.Array:
    with jax.named_scope("features"):
        x = jax.nn.relu(x - 0.2)
    return x.mean((1, 2)) @ jnp.array([[1.0, 2], [3, -4], [5, 6]])


X, TARGET = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3)), jnp.array([0, 1])
KEY = jax.random.key(2)
REFERENCES = jax.random.uniform(jax.random.key(3), (5, 8, 8, 3))


def halves(image: np.ndarray) -> np.ndarray:
    top = np.arange(len(image))[:, None] < np.full(image.shape[1], 4)
    return np.stack([top, ~top])


def on_maps(measure: Callable, **given: jax.Array) -> Callable:
    return lambda x, target, **key: measure(x, given.get("target", target), x, **key)


def square(x: jax.Array, target: jax.Array, key: jax.Array | None = None) -> jax.Array:
    return x**2


def segmented(measure: Callable) -> Callable:
    return lambda x, target: measure(x, target, x, jnp.arange(2 * 64).reshape(2, 8, 8) % 3)


LOOPS: dict[str, tuple[int, Callable]] = {
    "integrated_gradients": (7, lambda **o: jaxattr.integrated_gradients(tiny, steps=7, **o)),
    "blur_integrated_gradients": (
        7,
        lambda **o: jaxattr.blur_integrated_gradients(tiny, steps=7, **o),
    ),
    "xrai": (
        14,
        lambda **o: jaxattr.xrai(tiny, steps=7, segments=halves, min_pixels=1, **o),
    ),
    "cameras": (3, lambda **o: jaxattr.cameras(tiny, layer="features", scales=(1, 1.5), **o)),
    "ablation_cam": (4, lambda **o: jaxattr.ablation_cam(tiny, layer="features", **o)),
    "score_cam": (3, lambda **o: jaxattr.score_cam(tiny, layer="features", **o)),
    "occlusion": (50, lambda **o: jaxattr.occlusion(tiny, window=2, **o)),
    "feature_ablation": (5, lambda **o: jaxattr.feature_ablation(tiny, cells=2, **o)),
    "shapley_sampling": (8, lambda **o: jaxattr.shapley_sampling(tiny, samples=2, cells=2, **o)),
    "kernel_shap": (7, lambda **o: jaxattr.kernel_shap(tiny, samples=5, cells=2, **o)),
    "lime": (7, lambda **o: jaxattr.lime(tiny, samples=7, cells=2, **o)),
    "sobol_attribution": (10, lambda **o: jaxattr.sobol_attribution(tiny, samples=2, cells=2, **o)),
    "hsic_attribution": (7, lambda **o: jaxattr.hsic_attribution(tiny, samples=7, cells=2, **o)),
    "gradient_shap": (7, lambda **o: jaxattr.gradient_shap(tiny, samples=7, **o)),
    "deep_shap": (5, lambda **o: jaxattr.deep_shap(tiny, references=REFERENCES, **o)),
    "expected": (
        5,
        lambda **o: jaxattr.expected(jaxattr.feature_ablation, tiny, references=REFERENCES, **o),
    ),
    "conductance": (7, lambda **o: jaxattr.conductance(tiny, layer="features", steps=7, **o)),
    "internal_influence": (
        7,
        lambda **o: jaxattr.internal_influence(tiny, layer="features", steps=7, **o),
    ),
    "rise": (7, lambda **o: jaxattr.rise(tiny, samples=7, cells=3, **o)),
    "smoothgrad": (7, lambda **o: jaxattr.smoothgrad(jaxattr.saliency(tiny), samples=7, **o)),
    "smoothgrad_squared": (
        7,
        lambda **o: jaxattr.smoothgrad_squared(jaxattr.saliency(tiny), samples=7, **o),
    ),
    "vargrad": (7, lambda **o: jaxattr.vargrad(jaxattr.saliency(tiny), samples=7, **o)),
    "insertion": (9, lambda **o: on_maps(metrics.insertion(tiny, step=8, **o))),
    "deletion": (9, lambda **o: on_maps(metrics.deletion(tiny, step=8, **o))),
    "complementary_insertion": (
        9,
        lambda **o: on_maps(
            metrics.complementary_insertion(tiny, step=8, **o), target=TARGET[:, None]
        ),
    ),
    "morf": (9, lambda **o: on_maps(metrics.morf(tiny, fraction=1, steps=8, **o))),
    "lerf": (9, lambda **o: on_maps(metrics.lerf(tiny, fraction=1, steps=8, **o))),
    "srg": (10, lambda **o: on_maps(metrics.srg(tiny, steps=4, **o))),
    "road": (4, lambda **o: on_maps(metrics.road(tiny, steps=3, **o))),
    "faithfulness_correlation": (
        7,
        lambda **o: on_maps(metrics.faithfulness_correlation(tiny, size=9, samples=7, **o)),
    ),
    "sensitivity_n": (
        7,
        lambda **o: on_maps(metrics.sensitivity_n(tiny, counts=(9,), samples=7, **o)),
    ),
    "faithfulness_estimate": (
        7,
        lambda **o: on_maps(metrics.faithfulness_estimate(tiny, step=10, **o)),
    ),
    "idsds": (4, lambda **o: on_maps(metrics.idsds(tiny, cells=2, **o))),
    "monotonicity": (9, lambda **o: on_maps(metrics.monotonicity(tiny, step=8, **o))),
    "monotonicity_correlation": (
        8,
        lambda **o: on_maps(metrics.monotonicity_correlation(tiny, step=16, samples=2, **o)),
    ),
    "non_sensitivity": (4, lambda **o: on_maps(metrics.non_sensitivity(tiny, size=4, **o))),
    "region_perturbation": (5, lambda **o: on_maps(metrics.region_perturbation(tiny, size=4, **o))),
    "selectivity": (5, lambda **o: on_maps(metrics.selectivity(tiny, **o))),
    "irof": (4, lambda **o: segmented(metrics.irof(tiny, regions=3, **o))),
    "infidelity": (7, lambda **o: on_maps(metrics.infidelity(tiny, samples=7, **o))),
    "max_sensitivity": (
        7,
        lambda **o: metrics.max_sensitivity(jaxattr.input_x_gradient(tiny), samples=7, **o),
    ),
    "average_sensitivity": (7, lambda **o: metrics.average_sensitivity(square, samples=7, **o)),
    "local_lipschitz_estimate": (
        7,
        lambda **o: metrics.local_lipschitz_estimate(square, samples=7, **o),
    ),
    "continuity": (8, lambda **o: metrics.continuity(square, steps=8, **o)),
    "relative_input_stability": (
        7,
        lambda **o: metrics.relative_input_stability(square, tiny, samples=7, **o),
    ),
    "relative_representation_stability": (
        7,
        lambda **o: metrics.relative_representation_stability(
            square, tiny, layer="features", samples=7, **o
        ),
    ),
    "relative_output_stability": (
        7,
        lambda **o: metrics.relative_output_stability(square, tiny, samples=7, **o),
    ),
}
"""Loops over samples: how many there are, and what has the loop."""

RANDOM = {
    "infidelity",
    "max_sensitivity",
    "average_sensitivity",
    "local_lipschitz_estimate",
    "relative_input_stability",
    "relative_representation_stability",
    "relative_output_stability",
    "road",
    "faithfulness_correlation",
    "sensitivity_n",
    "monotonicity_correlation",
}
"""Metrics that draw random numbers."""


@pytest.mark.parametrize(
    "name", mostly_slow(LOOPS, ["occlusion", "smoothgrad", "insertion", "infidelity"])
)
def test_chunks_and_progress(name):
    """The same for every chunk; the last report is the whole."""
    total, make = LOOPS[name]
    needs_key = name in RANDOM or hasattr(jaxattr, name)
    key = {"key": KEY} if needs_key else {}
    seen: list[int] = []
    results = [
        jax.tree.leaves(jax.jit(make(**options))(X, TARGET, **key))
        for options in ({"chunk": 1, "progress": seen.append}, {"chunk": 3 if total % 3 else 100})
    ]
    jax.effects_barrier()
    assert max(seen) == total
    assert len(seen) == total
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_every_loop_over_samples_is_tested():
    public = {**vars(jaxattr), **vars(metrics)}
    functions = {n: f for n, f in public.items() if inspect.isfunction(f)}
    chunked = {n for n, f in functions.items() if "chunk" in inspect.signature(f).parameters}
    assert chunked == set(LOOPS)


INITS: dict[str, tuple[Callable, Callable]] = {
    "dmbp": (
        partial(jaxattr.dmbp, steps=2),
        lambda frozen, x, target: (0.5 * jnp.ones((2, 8, 8, 3)),),
    ),
    "lpr": (
        partial(jaxattr.lpr, steps=2),
        lambda frozen, x, target: (0.5 * jnp.ones((2, 8, 8, 3)),),
    ),
    "meaningful_perturbation": (
        partial(jaxattr.meaningful_perturbation, steps=2, spacing=4),
        lambda x, target: jnp.full((2, 2, 2), 0.5),
    ),
    "extremal_perturbation": (
        partial(jaxattr.extremal_perturbation, steps=2, areas=(0.5,), spacing=4),
        lambda x, target: jnp.full((2, 1, 2, 2), 0.5),
    ),
}


@pytest.mark.parametrize("name", mostly_slow(INITS, ["dmbp"]))
def test_an_init_is_a_number_an_array_or_a_function(name):
    explain, init = INITS[name]
    given = [0.5, jnp.full(1, 0.5), init]
    maps = [jax.jit(explain(tiny, init=i))(X, TARGET, key=KEY) for i in given]
    for other in maps[1:]:
        np.testing.assert_array_equal(other, maps[0])


def test_a_metrics_baseline_is_a_number_an_array_or_a_function():
    for make in (partial(metrics.insertion, step=8), partial(metrics.morf, fraction=1)):
        given = [make(tiny, baseline=b) for b in (0.5, jnp.full(3, 0.5), lambda x: 0 * x + 0.5)]
        first, *others = (jax.jit(measure)(X, TARGET, X).curve for measure in given)
        for other in others:
            np.testing.assert_array_equal(other, first)


BASELINES: dict[str, Callable] = {
    "integrated_gradients": partial(jaxattr.integrated_gradients, steps=3),
    "guided_integrated_gradients": partial(jaxattr.guided_integrated_gradients, steps=3),
    "deeplift": jaxattr.deeplift,
    "occlusion": partial(jaxattr.occlusion, window=2),
    "lpr": partial(jaxattr.lpr, steps=2),
}


@pytest.mark.parametrize("name", mostly_slow(BASELINES, ["deeplift", "occlusion"]))
def test_a_baseline_is_a_number_an_array_or_a_function(name):
    explain = BASELINES[name]
    f = lambda x: jax.nn.relu(x.mean((1, 2)) - 0.2) @ jnp.array([[1.0, 2], [3, -4], [5, 6]])
    x, target = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3)), jnp.array([0, 1])
    given = [explain(f, baseline=b) for b in (0.5, jnp.full(3, 0.5), lambda x: 0 * x + 0.5)]
    first, *others = (jax.jit(attribute)(x, target) for attribute in given)
    for other in others:
        np.testing.assert_array_equal(other, first)
    with pytest.raises(ValueError, match=r"baseline has shape \(5,\), which does not broadcast"):
        explain(f, baseline=jnp.ones(5))(x, target)
    with pytest.raises(ValueError, match="baseline is True; expected a number, an array that"):
        explain(f, baseline=lambda x: True)(x, target)


WIDTHS: dict[str, Callable] = {
    "noise": lambda w: [
        wrap(jaxattr.saliency(tiny), noise=w)
        for wrap in (jaxattr.smoothgrad, jaxattr.smoothgrad_squared, jaxattr.vargrad)
    ],
    "noise ": lambda w: jaxattr.meaningful_perturbation(tiny, noise=w),
    "blur_sigma": lambda w: jaxattr.meaningful_perturbation(tiny, blur_sigma=w),
    "mask_sigma": lambda w: jaxattr.meaningful_perturbation(tiny, mask_sigma=w),
    "max_sigma": lambda w: jaxattr.blur_integrated_gradients(tiny, max_sigma=w),
    "grad_step": lambda w: jaxattr.blur_integrated_gradients(tiny, grad_step=w),
    "sigma": lambda w: jaxattr.extremal_perturbation(tiny, sigma=w),
    "smoothing": lambda w: jaxattr.extremal_perturbation(tiny, smoothing=w),
}


@pytest.mark.parametrize("width", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", WIDTHS)
def test_noise_and_widths_are_finite_and_not_negative(name: str, width: float):
    with pytest.raises(ValueError, match=f"^{name.strip()} is {width}; expected a"):
        WIDTHS[name](width)
