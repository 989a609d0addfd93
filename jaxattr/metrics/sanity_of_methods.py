"""Sanity of methods: maps of other classes, of random parameters, and of shifted inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from jaxattr.contract import check_positive, need_key
from jaxattr.image.maps import heatmap
from jaxattr.metrics.arguments import batch_of, real
from jaxattr.metrics.randomization import Initializer, randomize_parameters
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Curve, Score, scored
from jaxattr.metrics.similarity import rank_correlation
from jaxattr.metrics.stability import Sensitivity
from jaxattr.types import Array, Attribution, Fun, Key


def random_logit(
    attribute: Attribution,
    *,
    classes: int,
    similarity: Callable[[Array, Array], Score] = rank_correlation,
) -> Sensitivity:
    """Compare the map of a class with that of another class, drawn at random.

    Lower is better: a method whose maps hardly depend on the class explains no class.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for both.
        classes: K, how many the model has.
        similarity: of two batches of maps: `rank_correlation`, `ssim`, or one with options.

    Returns:
        A function of `x`, `target` and `key` to similarities. Cost: two attributions.

    Raises:
        ValueError: if there is one class, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> same = lambda x, target, key=None: x
        >>> measure = random_logit(same, classes=9)
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> round(jax.jit(measure)(x, jnp.array([0]), key=jax.random.key(0)).score.item(), 4)
        1.0

    Reference:
        Sixt, Granz and Landgraf, When explanations lie, ICML 2020, section 4.
    """
    if classes < 2:
        raise ValueError(f"classes is {classes}; expected another class beside that explained")

    def measure(x: Array, target: Array, *, key: Key) -> Score:
        x, target = batch_of(x), jnp.asarray(target)
        ours, theirs = jax.random.split(need_key(key, "random_logit"))
        other = (target + jax.random.randint(ours, target.shape, 1, classes)) % classes
        maps = [attribute(x, t, key=theirs) for t in (target, other.astype(target.dtype))]
        return similarity(maps[0], maps[1])

    return measure


def mprt(
    explain: Callable[[Any], Attribution],
    parameters: Any,
    layers: Sequence[str],
    *,
    similarity: Callable[[Array, Array], Score] = rank_correlation,
    initializer: Initializer | None = None,
) -> Callable[..., Curve]:
    """Compare the maps of a model with those of the same with more and more random layers (MPRT).

        curve_i = similarity( A(x; parameters), A(x; layers 0..i random) )

    The model parameter randomization test. Lower is better. With an attribution that is averaged
    over noise, `explain=lambda p: jaxattr.smoothgrad(method(p))`, it is smooth MPRT, where noise in
    the gradients does not count for a change.

    Args:
        explain: from parameters to an attribution, such as `lambda p: jaxattr.saliency(net(p))`.
        parameters: a pytree, as for `randomize_parameters`.
        layers: in the order in which they become random: the paper's from the last down.
        similarity: of two batches of maps: `rank_correlation`, `ssim`, or one with options.
        initializer: as for `randomize_parameters`.

    Returns:
        A function of `x`, `target` and `key` to a `Curve` with a similarity for each layer,
        `(B, len(layers))`, and their mean. Cost: an attribution for each layer, and one.

    Raises:
        ValueError: if there are no layers, or a layer is unknown.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> net = lambda p: lambda x: (x * p["w"]).sum((1, 2))
        >>> p = {"w": jnp.arange(9.0).reshape(3, 3, 1)}
        >>> measure = mprt(lambda p: jaxattr.saliency(net(p)), p, ["w"])
        >>> found = jax.jit(measure)(jnp.ones((1, 3, 3, 1)), jnp.array([0]), key=jax.random.key(0))
        >>> found.curve.shape, found.score.item() < 0.5
        ((1, 1), True)

    Reference:
        Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018; smooth: Hedstroem, Weber,
        Lapuschkin and Hoehne, Sanity checks revisited, NeurIPS workshop 2023.
    """
    check_positive("the number of layers", len(layers))

    def measure(x: Array, target: Array, *, key: Key) -> Curve:
        x, target = batch_of(x), jnp.asarray(target)
        ours, theirs = jax.random.split(need_key(key, "mprt"))
        maps = lambda p: explain(p)(x, target, key=theirs)
        still = maps(parameters)
        stages = [
            randomize_parameters(parameters, layers[: i + 1], key=ours, initializer=initializer)
            for i in range(len(layers))
        ]
        curve = jnp.stack([similarity(still, maps(stage)).score for stage in stages], 1)
        return Curve(curve, *scored(curve.mean(1)))

    return measure


def efficient_mprt(a: Array, b: Array, *, bins: int = 100, reduce: Reduction = heatmap) -> Score:
    """Return by how much maps become more complex when all parameters of a model are random.

        score = (H(b) - H(a)) / H(a)

    with the entropies H of their histograms. Higher is better. Two attributions, in place of one
    for every layer as for `mprt`; no similarity has to be chosen.

    Args:
        a: maps of the model, `(B, H, W)` or `(B, H, W, C)`.
        b: maps of the model with random parameters (`randomize_parameters`), of the same images.
        bins: of the histograms, between the smallest and the largest value of a map.
        reduce: how the channels become one number.

    Returns:
        Relative rises; no score where `a` has no entropy, or a map is not finite.

    Raises:
        ValueError: if the maps differ in height or width.

    Example:
        >>> import jax.numpy as jnp
        >>> a, b = jnp.array([[[0.0, 0.0, 1.0, 1.0]]]), jnp.array([[[0.0, 1.0, 2.0, 3.0]]])
        >>> round(efficient_mprt(a, b).score.item(), 4)
        1.0

    Reference:
        Hedstroem, Weber, Lapuschkin and Hoehne, Sanity checks revisited, NeurIPS workshop 2023.
    """
    check_positive("bins", bins)
    a = reduced(a, reduce)
    b = reduced(b, reduce, a.shape)
    before, after = (jax.vmap(lambda m: _entropy(m, bins))(m) for m in (a, b))
    known = (before > 0) & finite(a) & finite(b)
    return scored((after - before) / jnp.where(before > 0, before, 1), known)


def _entropy(a: Array, bins: int) -> Array:
    """Return the entropy of the histogram of one map."""
    low, high = a.min(initial=jnp.inf), a.max(initial=-jnp.inf)
    edges = low + (high - low) * (jnp.arange(1, bins) / bins)
    places = jnp.searchsorted(edges, a.ravel(), side="right")
    counts = jnp.zeros(bins, a.dtype).at[jnp.where(high > low, places, 0)].add(1)
    return entr(counts / max(a.size, 1)).sum()


def input_invariance(
    method: Callable[[Fun], Attribution], f: Fun, *, shift: float = 1.0
) -> Callable[[Array, Array], Score]:
    """Measure how much a map changes when input and model are shifted against each other.

        score = max_p |A_g(x + s)_p - A_f(x)_p| / max_p |A_f(x)_p|,    g(x) = f(x - s)

    The two models compute the same for their inputs, so that 0 is expected. Lower is better. Law: 0
    for the gradient; methods that multiply by the input, or compare with a fixed baseline, fail.

    Args:
        method: from a model to an attribution, such as `jaxattr.saliency`.
        f: images `(B, H, W, C)` to logits `(B, K)`.
        shift: s, in units of the model's input.

    Returns:
        A function of `x` and `target` to a score; none where the map is zero or not finite. Cost:
        two attributions.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp, jaxattr
        >>> f, x, target = lambda x: x.sum((1, 2)), jnp.ones((1, 2, 2, 1)), jnp.array([0])
        >>> for method in (jaxattr.saliency, jaxattr.input_x_gradient):
        ...     print(input_invariance(method, f)(x, target).score.item())
        0.0
        1.0

    Reference:
        Kindermans et al., The (un)reliability of saliency methods, 2017, section 3.

    Differs from Quantus, which tests whether the two are equal to 1e-4.
    """

    def measure(x: Array, target: Array) -> Score:
        x, target = batch_of(x), jnp.asarray(target)
        models = (f, x), (lambda z: f(z - shift), x + shift)
        still, moved = (
            real("the attribution", method(g)(z, target)).reshape(len(x), -1) for g, z in models
        )
        size = jnp.abs(still).max(1)
        change = jnp.abs(moved - still).max(1)
        return scored(jnp.where(size > 0, change / jnp.where(size > 0, size, 1), jnp.nan))

    return measure
