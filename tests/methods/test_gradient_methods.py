"""What each gradient method promises: closed forms, completeness, dense Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import Relu, Relu6, load, plain, run
from peers import relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.loops import quadrature as quadratures

LINEAR = jnp.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0]])


def linear(x):
    return x.reshape(len(x), -1) @ LINEAR


def smooth_function(x):
    z = x.reshape(len(x), -1)
    return jnp.stack([5 * z[:, 0] + z[:, 1] ** 2 + jnp.sin(z[:, 2]), z[:, 0] * z[:, 1]], 1)


IMAGE = jnp.array([0.7, -1.5, 2.0]).reshape(1, 1, 3, 1)


@pytest.mark.parametrize("t", mostly_slow([0, 1], [1]))
def test_linear_model(t):
    target = jnp.array([t])
    for method, expected in [
        (jaxattr.saliency(linear), LINEAR[:, t]),
        (jaxattr.input_x_gradient(linear), LINEAR[:, t] * IMAGE.ravel()),
        (jaxattr.integrated_gradients(linear), LINEAR[:, t] * IMAGE.ravel()),
        (jaxattr.integrated_gradients(linear, baseline=1.0), LINEAR[:, t] * (IMAGE.ravel() - 1)),
        (jaxattr.smoothgrad(jaxattr.saliency(linear), samples=7), LINEAR[:, t]),
        (jaxattr.smoothgrad_squared(jaxattr.saliency(linear), samples=7), LINEAR[:, t] ** 2),
        (jaxattr.vargrad(jaxattr.saliency(linear), samples=7), jnp.zeros(3)),
    ]:
        maps = jax.jit(method)(IMAGE, target, key=jax.random.key(0))
        np.testing.assert_allclose(maps.ravel(), expected, rtol=1e-5, atol=1e-6)


def test_integrated_gradients_in_closed_form():
    with enable_x64(True):
        x = IMAGE.astype(float)
        attribute = jaxattr.integrated_gradients(smooth_function, steps=20)
        a, b, c = np.asarray(x, float).ravel()
        first = attribute(x, jnp.array([0])).ravel()
        second = attribute(x, jnp.array([1])).ravel()
    np.testing.assert_allclose(first, [5 * a, b**2, np.sin(c)], rtol=1e-12)
    np.testing.assert_allclose(second, [a * b / 2, a * b / 2, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("quadrature", "order"),
    mostly_slow(
        [
            (quadratures.left_riemann, 1),
            (quadratures.right_riemann, 1),
            (quadratures.midpoint, 2),
            (quadratures.trapezoid, 2),
        ],
        [(quadratures.right_riemann, 1), (quadratures.trapezoid, 2)],
    ),
)
def test_completeness_converges_at_the_order_of_the_quadrature(quadrature, order):
    """The error of `sum a = f(x) - f(x')` falls as `steps ** -order`."""
    with enable_x64(True):
        x, baseline = IMAGE.astype(float), jnp.full((3, 1), 0.3)
        start = jnp.broadcast_to(baseline, x.shape)
        change = smooth_function(x)[0, 0] - smooth_function(start)[0, 0]
        errors = []
        for intervals in (50, 100):
            steps = intervals + (quadrature is quadratures.trapezoid)
            attribute = jaxattr.integrated_gradients(
                smooth_function, steps=steps, baseline=baseline, quadrature=quadrature, chunk=7
            )
            maps = jax.jit(attribute)(x, jnp.array([0]))
            errors.append(abs(float(maps.sum() - change)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_gauss_legendre_converges_faster_than_any_order():
    with enable_x64(True):
        x = IMAGE.astype(float)
        change = float(smooth_function(x)[0, 0])
        errors = [
            abs(
                float(
                    jax.jit(jaxattr.integrated_gradients(smooth_function, steps=n))(
                        x, jnp.array([0])
                    ).sum()
                )
                - change
            )
            for n in (2, 4, 8)
        ]
    assert errors[1] < errors[0] * 1e-2
    assert errors[2] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_completeness_on_networks(name):
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        rows = jnp.arange(len(x))
        change = (f(x) - f(jnp.zeros_like(x)))[rows, target]
        attribute = jaxattr.integrated_gradients(f, steps=400, chunk=50)
        total = np.asarray(jax.jit(attribute)(x, target)).sum((1, 2, 3))
    np.testing.assert_allclose(total, change, atol=5e-3 * np.abs(change).max())


def test_moments_of_smoothing_agree():
    """E[A^2] = E[A]^2 + Var[A] with the same key; chunking does not change the draws."""
    net, params, x, target = load("vgg")
    saliency, key = jaxattr.saliency(plain(net, params)), jax.random.key(3)
    run_ = lambda m, chunk: jax.jit(m(saliency, samples=7, noise=0.2, chunk=chunk))(
        x, target, key=key
    )
    mean, square, var = (
        run_(m, 1) for m in (jaxattr.smoothgrad, jaxattr.smoothgrad_squared, jaxattr.vargrad)
    )
    np.testing.assert_allclose(square, mean**2 + var, rtol=1e-5, atol=1e-7)
    for m, whole in ((jaxattr.smoothgrad, mean), (jaxattr.vargrad, var)):
        np.testing.assert_allclose(run_(m, 3), whole, rtol=1e-3, atol=1e-6)


def test_noise_is_relative_to_each_images_range():
    """The identity, smoothed: its variance over draws is (noise * range)^2 for each image."""
    identity = lambda x, target, key: x
    x = (
        jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
        * jnp.array([1.0, 10.0])[:, None, None, None]
    )
    var = jax.jit(jaxattr.vargrad(identity, samples=500, noise=0.2))(
        x, jnp.zeros(2, int), key=jax.random.key(1)
    )
    spread = x.max((1, 2, 3)) - x.min((1, 2, 3))
    np.testing.assert_allclose(var.mean((1, 2, 3)), (0.2 * spread) ** 2, rtol=0.02)


def dense_backward(net, params, x, target, gate):
    """Backpropagate by full Jacobians, layer by layer, with `gate(g, z, slope)` at activations."""
    stages = []

    def record(layer, value):
        stages.append((layer, value))
        return plain((layer,), params)(value)

    logits = run(net, x, record)
    g = jax.nn.one_hot(target, logits.shape[-1], dtype=x.dtype)[0]
    for layer, value in reversed(stages):
        z = value[0]
        if isinstance(layer, Relu | Relu6):
            top = 6 if isinstance(layer, Relu6) else jnp.inf
            g = gate(g, z, (z > 0) & (z < top))
        else:
            one = lambda v, layer=layer: plain((layer,), params)(v[None])[0]
            jacobian = jax.jit(jax.jacobian(one))(z)
            g = jnp.tensordot(g, jacobian, axes=g.ndim)
    return g[None]


GATES = {
    "saliency": lambda g, z, slope: g * slope,
    "guided_backprop": lambda g, z, slope: jnp.maximum(g, 0) * slope,
    "deconvnet": lambda g, z, slope: jnp.maximum(g, 0),
}


@pytest.mark.parametrize("method", mostly_slow(GATES, ["guided_backprop"]))
def test_against_dense_jacobians(method):
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        x, target = x[:1, :8, :10], target[:1]
        weight = params["fc1.weight"].reshape(20, 16, 4, 5)[:, :, :2, :3]
        params = params | {"fc1.weight": weight.reshape(20, -1)}
        ours = jax.jit(getattr(jaxattr, method)(plain(net, params)))(x, target)
        theirs = dense_backward(net, params, x, target, GATES[method])
    assert relative_error(ours, theirs) < 1e-12


def test_grad_cam_is_cam_for_global_average_pooling():
    """The map is the class's weighted sum of channels, over the number of positions."""
    net, params, x, target = load("resnet")
    f = plain(net, params)
    features = jax.jit(plain(net[:-2], params))(x)
    cam = jnp.einsum("bhwc,bc->bhw", features, params["fc.weight"][target])[..., None]
    expected = cam / (features.shape[1] * features.shape[2])
    resized = jax.image.resize(expected, (*x.shape[:3], 1), "bilinear")
    for layer in (None, "layer2"):
        maps = jax.jit(jaxattr.grad_cam(f, layer=layer))(x, target)
        assert relative_error(maps, resized) < 1e-5
    signed = jax.jit(jaxattr.grad_cam(lambda x: -f(x), relu=False))(x, target)
    assert relative_error(signed, -resized) < 1e-5


def test_grad_cam_needs_a_spatial_layer():
    net, params, x, target = load("resnet")
    with pytest.raises(ValueError, match=r"layer 'fc' has shape \(3, 7\)"):
        jaxattr.grad_cam(plain(net, params), layer="fc")(x, target)
    with pytest.raises(ValueError, match="did you mean layer2 or layer1"):
        jaxattr.grad_cam(plain(net, params), layer="layer3")(x, target)


def test_options_that_count():
    for option in ("steps", "chunk"):
        with pytest.raises(ValueError, match=f"{option} is 0; expected at least 1"):
            jaxattr.integrated_gradients(linear, **{option: 0})
    for option in ("samples", "chunk"):
        with pytest.raises(ValueError, match=f"{option} is 0; expected at least 1"):
            jaxattr.smoothgrad(jaxattr.saliency(linear), **{option: 0})


@pytest.mark.parametrize("method", ["saliency", "input_x_gradient", "guided_backprop", "deconvnet"])
def test_at_a_layer_it_is_the_map_of_the_rest_of_the_network(method):
    net, params, x, target = load("tiny")
    f, make = plain(net, params), getattr(jaxattr, method)

    @jax.jit
    def both(x, target):
        rest = make(plain(net[2:], params))
        return make(f, layer="relu1")(x, target), rest(plain(net[:2], params)(x), target)

    ours, expected = both(x, target)
    assert relative_error(ours, expected) < 1e-6
    with pytest.raises(ValueError, match="layer 'relu0' is unknown; did you mean"):
        jax.eval_shape(make(f, layer="relu0"), x, target)
