"""SmoothGrad-Squared: the square of any attribution, averaged over noisy copies."""

from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.methods.smoothgrad import over_noise
from jaxattr.types import Attribution


@method(cost="samples x the method", family="noise", random=True, wraps=True)
def smoothgrad_squared(
    attribute: Attribution,
    *,
    samples: int = 50,
    noise: float = 0.15,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Average the square of an attribution over noisy copies of the image (SmoothGrad-Squared).

        a = 1/n sum_i A(x + e_i)^2

    Law: equals `smoothgrad` squared plus `vargrad`, with the same key.

    Args:
        attribute: any attribution.
        samples: n.
        noise: standard deviation as a fraction of the image's range.
        chunk: how many samples are evaluated at once; memory grows with it, not with `samples`.
        progress: called with the number of samples done, up to a hundred times.

    Returns:
        A non-negative attribution of the shape that `attribute` gives. It needs a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> f = lambda x: (x**2).reshape(1, 1)  # one pixel: its range, and so the noise, is 0
        >>> a = smoothgrad_squared(jaxattr.saliency(f), samples=10)
        >>> a(jnp.full((1, 1, 1, 1), 2.0), jnp.array([0]), key=jax.random.key(0)).item()
        16.0

    Reference:
        Hooker, Erhan, Kindermans and Kim, A benchmark for interpretability methods, NeurIPS 2019.
    """
    return over_noise(
        attribute,
        lambda m: m.mean**2 + m.variance,
        "smoothgrad_squared",
        samples=samples,
        noise=noise,
        chunk=chunk,
        progress=progress,
    )
