"""Images that see each other, and integers on the way, are errors and no maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxattr

X, TARGET = jax.random.normal(jax.random.key(0), (3, 8, 8, 3)), jnp.array([0, 1, 2])


class Net(nn.Module):
    training: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not self.training)(x))
        return nn.Dense(5)(x.mean((1, 2)))


def linen(training):
    variables = Net(training=False).init(jax.random.key(1), X)
    return lambda x: Net(training=training).apply(variables, x, mutable=["batch_stats"])[0]


def by_hand(x, axes=(0, 1, 2)):
    x = (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + 1e-5)
    return jax.nn.relu(x).mean((1, 2))


@pytest.mark.parametrize(
    "over",
    [
        lambda h: jnp.sort(h, 0),
        lambda h: jax.lax.top_k(h.T, 3)[0].T,
        lambda h: jnp.cumsum(h, 0),
        lambda h: jnp.fft.fft(h, axis=0).real,
    ],
    ids=["sort", "top_k", "cumsum", "fft"],
)
def test_whatever_goes_over_the_batch(over):
    with pytest.raises(ValueError, match="goes over the batch"):
        jaxattr.saliency(lambda x: over(x.mean((1, 2))))(X, TARGET)
    assert np.isfinite(jaxattr.saliency(lambda x: over(x.mean((1, 2)).T).T)(X, TARGET)).all()


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "occlusion", "lrp", "rise"])
@pytest.mark.parametrize("f", [linen(training=True), by_hand], ids=["linen", "by hand"])
def test_a_batch_norm_in_training_mode(f, method):
    with pytest.raises(ValueError, match=r"goes over the batch.*evaluation mode"):
        getattr(jaxattr, method)(f)(X, TARGET, key=jax.random.key(0))


def test_what_does_not_mix_images():
    """Evaluation mode, one image, statistics of an image, and functions under vmap."""
    explain = lambda f: jax.jit(jaxattr.saliency(f))
    explain(linen(training=False))(X, TARGET)
    explain(linen(training=True))(X[:1], TARGET[:1])
    alone = lambda x: by_hand(x, (1, 2))
    maps = explain(alone)(X, TARGET)
    vmapped = jax.vmap(lambda image: by_hand(image[None], (1, 2))[0])
    np.testing.assert_allclose(explain(vmapped)(X, TARGET), maps, rtol=1e-4, atol=1e-6)
    square = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))  # as many images as rows
    explain(alone)(square, jnp.zeros(8, int))
    detached = lambda x: alone(x) * jax.lax.stop_gradient(1 + x.sum())
    explain(detached)(X, TARGET)


def quantized(x):
    a = jnp.round(x / 0.1).astype(jnp.int8).astype(jnp.int32)
    return (a @ jnp.ones((3, 5), jnp.int32)).astype(jnp.float32).mean((1, 2)) * 0.1


def test_integers_on_the_way():
    for method in (jaxattr.saliency, jaxattr.guided_grad_cam, jaxattr.integrated_gradients):
        with pytest.raises(ValueError, match=r"rounds to integers before .*test_independence.py"):
            method(quantized)(X, TARGET)
    assert np.abs(jax.jit(jaxattr.occlusion(quantized))(X, TARGET)).max() > 0
