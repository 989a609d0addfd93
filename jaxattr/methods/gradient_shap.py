"""GradientSHAP: expected gradients, between random references and the image."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr.contract import attribution, check_positive, class_gradient, need_key
from jaxattr.facts import method
from jaxattr.loops.moments import moments
from jaxattr.loops.progress import Progress
from jaxattr.methods.expected import images_like
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Fun, Key


@method(cost="samples x (1 forward, 1 backward)", family="paths", random=True)
def gradient_shap(
    f: Fun,
    *,
    references: ArrayLike = 0.0,
    samples: int = 50,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Average gradients between random references and the image (expected gradients).

        a = mean_i (x - x'_i) * d f(x'_i + s_i (x - x'_i))[t] / dx

    with `x'_i` drawn from the references and `s_i` from [0, 1], sample `i` from `fold_in(key, i)`,
    the same for all images: `integrated_gradients`, averaged over baselines, both at once. Law
    (completeness): in expectation `a` sums to `f(x)[t]` less the mean of `f(x')[t]`; exactly, where
    `f` is affine in the image and there is one reference.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        references: images that stand for the data, `(N, H, W, C)`, or a number for a uniform one.
        samples: how many are drawn.
        chunk: how many points are evaluated at once; memory grows with it, not with `samples`.
        progress: called with the number of points done, up to a hundred times.

    Returns:
        An attribution of the shape of `x`, in logits. It needs a key. Cost: `samples` forward and
        backward passes.

    Raises:
        ValueError: if the references do not fit the images.

    Example:
        >>> f = lambda x: 3 * x.reshape(1, 2)
        >>> a = gradient_shap(f, references=1.0, samples=3)
        >>> a(jnp.full((1, 1, 2, 1), 2.0), jnp.array([1]), key=jax.random.key(0)).ravel()
        Array([0., 3.], dtype=float32)

    Reference:
        Erion, Janizek, Sturmfels, Lundberg and Lee, Improving performance of deep learning models
        with axiomatic attribution priors and expected gradients, Nature Machine Intelligence 2021.

    Differs from Captum's GradientShap, which adds noise to the image if asked to:
    `jaxattr.smoothgrad` of this does.
    """
    check_positive("samples", samples)
    check_positive("chunk", chunk)

    def explain(x: Array, target: Array, key: Key | None) -> Array:
        key, starts = need_key(key, "gradient_shap"), images_like(references, x)

        def draw(i: Array) -> tuple[Array, Array]:
            chosen, placed = jax.random.split(jax.random.fold_in(key, i))
            number = jax.random.randint(chosen, (), 0, len(starts))
            return number, jax.random.uniform(placed, (), x.dtype)

        draws = jax.vmap(draw)(jnp.arange(samples))
        return expected_gradient(f, x, target, starts, draws, chunk=chunk, progress=progress)

    return attribution(f, explain)


def expected_gradient(
    f: Fun,
    x: Array,
    target: Array,
    references: Array,
    draws: tuple[Array, Array],
    *,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Array:
    """Average gradients at given draws: numbers of references, and places on the way, `(n,)`."""
    g = lowered(f)

    def evaluate(draw: tuple[Array, Array], x: Array, target: Array) -> Array:
        number, s = draw
        start = references[number][None]
        return (x - start) * class_gradient(g, start + s * (x - start), target)

    weights = jnp.ones(len(draws[0]))
    return moments(evaluate, draws, weights, x, target, chunk=chunk, progress=progress).mean
