"""LRP on whole networks: peers' arrays, conservation, invariances, what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from modern import MODERN, images, vit
from nets import NETS, load, plain
from peers import peer, relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.methods.lrp import DEFAULT
from jaxattr.rules import lrp
from jaxattr.rules.composites import (
    Composite,
    attn_lrp,
    attn_lrp_vit,
    cp_lrp,
    cp_lrp_vit,
    epsilon_alpha2_beta1,
    epsilon_gamma_box,
    epsilon_plus_flat,
    uniform,
)
from jaxattr.rules.contributions import Handed, negative_terms, positive_terms
from jaxattr.rules.relevance import divide, proportional

STABILIZER = 1e-6  # zennit's, in every denominator
POOLED = {"vgg": 1, "resnet": 25, "lite": 4}  # entries in an average, which zennit stabilises


def zennits_gamma(r, x, layer):
    """Tell positive outputs from negative ones by a bias that the denominators lack."""
    b, bare = layer.shift, layer._replace(shift=jnp.zeros_like(layer.shift))
    p, n = positive_terms(bare, x), negative_terms(bare, x)
    z = p.total + n.total
    up = divide(jnp.where(z + b > 0, r, 0), z + 0.25 * p.total, STABILIZER)
    down = divide(jnp.where(z + b < 0, r, 0), z + 0.25 * n.total, STABILIZER)
    return Handed(p.back(1.25 * up + down) + n.back(up + 1.25 * down), jnp.zeros_like(r))


def zennits(x):
    """Return its settings by name: a composite, and whether biases count."""
    low, high, given = x.min(), x.max(), {"stabilizer": STABILIZER}
    epsilon, plus, gamma = lrp.epsilon(0.1), lrp.z_plus(**given), lrp.gamma(0.25, **given)
    pairs, box = lrp.alpha_beta(2, 1, **given), lrp.z_box(low, high, **given)
    flat = lrp.flat(**given)
    found = {
        "epsilon_0.1": uniform(epsilon),
        "gamma_0.25": uniform(gamma),
        "alpha2_beta1": uniform(pairs),
        "z_plus": uniform(plus),
        "w_square": uniform(lrp.w_square(**given)),
        "box_z_plus": uniform(plus, first=box),
        "epsilon_plus": Composite(plus, epsilon),
        "epsilon_plus_flat": Composite(plus, epsilon, flat),
        "epsilon_alpha2_beta1": Composite(pairs, epsilon),
        "epsilon_gamma_box": Composite(gamma, epsilon, box),
    }
    bare = found | {
        "gamma_0.25": uniform(zennits_gamma),
        "epsilon_gamma_box": Composite(zennits_gamma, lrp.without_bias(epsilon), box),
    }
    return (
        {k: (c, True) for k, c in found.items()}
        | {f"{k}.nobias": (c, "gamma" in k) for k, c in bare.items()}
        | {"flat": (uniform(flat), True)}
    )


@pytest.mark.parametrize("name", mostly_slow(NETS, ["vgg"]))
def test_zennit(name):
    theirs = {k: v for k, v in peer(f"relevance_{name}").items() if k.startswith("lrp.")}
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        x, target = x[:2], target[:2]
        splits = {
            "sum": proportional(stabilizer=STABILIZER, conserve=False),
            "mean": proportional(stabilizer=STABILIZER * POOLED[name], conserve=False),
        }

        @jax.jit
        def explain(params, x, target):
            return {
                f"lrp.{setting}": jaxattr.lrp(
                    plain(net, params), composite=composite._replace(**splits), bias=bias
                )(x, target)
                for setting, (composite, bias) in zennits(x).items()
            }

        ours = explain(params, x, target)
    assert len(theirs) == 21
    errors = {k: relative_error(ours[k], v) for k, v in theirs.items()}
    assert max(errors.values()) < 1e-10, errors


def batch_norm(x, seed):
    """Normalize as in inference; half of the scales are negative."""
    scale, offset, mean = np.random.default_rng(seed).standard_normal((3, x.shape[-1]))
    return (x - mean) * (scale / np.sqrt(mean**2 + 0.5)) + offset


def conv(x, features, seed, strides=(1, 1), size=3):
    w = np.random.default_rng(seed).standard_normal((size, size, x.shape[-1], features))
    return lax.conv_general_dilated(
        x, w / size, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def average(x):
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def densenet(x):
    """Layers that normalize first and put their output beside their input."""
    x = jax.nn.relu(batch_norm(conv(x, 4, 0), 1))
    for i in range(2):
        for j in range(2):
            new = conv(jax.nn.relu(batch_norm(x, 10 + j)), 4, 20 + j, size=1)
            new = conv(jax.nn.relu(batch_norm(new, 30 + j)), 3, 40 + i)
            x = jnp.concatenate([x, new], -1)
        x = average(conv(jax.nn.relu(batch_norm(x, 50)), 6, 60, size=1))
    x = jax.nn.relu(batch_norm(x, 70)).mean((1, 2))
    return x @ np.random.default_rng(80).standard_normal((6, 5))


def network(name):
    """Return a classifier, images and classes."""
    if name == "densenet":
        return densenet, jnp.asarray(np.random.default_rng(9).standard_normal((2, 9, 8, 3))), (1, 4)
    net, params, x, target = load(name, "float64")
    return plain(net, params), x[:2], tuple(map(int, target[:2]))


CONSERVING = {
    "epsilon plus flat": epsilon_plus_flat(epsilon=0.1),
    "alpha 2, beta 1": epsilon_alpha2_beta1(epsilon=0.1),
    "gamma, box": epsilon_gamma_box(-3.0, 3.0),
}


@pytest.mark.parametrize("composite", mostly_slow(CONSERVING, [*CONSERVING][:1]))
@pytest.mark.parametrize("name", mostly_slow([*NETS, "densenet"], ["lite"]))
def test_relevance_is_conserved_everywhere(name, composite):
    """What arrives anywhere is handed down; the image gets the logit."""
    with enable_x64(True):
        f, x, target = network(name)
        explain = jaxattr.conservation(f, composite=CONSERVING[composite], conserve=True)
        target = jnp.array(target)
        found = jax.device_get(jax.jit(explain)(x, target))
        logits = jax.jit(f)(x)[np.arange(2), target]
        np.testing.assert_allclose(found.start, logits, rtol=1e-12)
    np.testing.assert_allclose(found.end, found.start, rtol=1e-8)
    for name, lost in found.lost.items():
        scale = np.abs(found.arrived[name]) + np.abs(found.start)
        assert (np.abs(lost) < 1e-8 * scale).all(), name


FULL = [lrp.z_box(-9.0, 9.0), lrp.flat(), lrp.w_square()]


@pytest.mark.parametrize("rule", mostly_slow(FULL, FULL[:1]))
def test_without_biases_a_rule_conserves_where_every_output_has_terms(rule):
    with enable_x64(True):
        f, x, target = network("resnet")
        a = jax.jit(jaxattr.lrp(f, composite=uniform(rule), bias=False))(x, jnp.array(target))
        np.testing.assert_allclose(a.sum((1, 2, 3)), jax.jit(f)(x)[np.arange(2), target], rtol=1e-8)


def test_losses_are_told_and_add_up():
    """A bias of one keeps its share; all that is lost is what the image lacks."""
    with enable_x64(True):
        f, x, target = network("lite")
        found = jax.device_get(jax.jit(jaxattr.conservation(f))(x, jnp.array(target)))
    lost = sum(found.lost.values())
    np.testing.assert_allclose(found.start - found.end, lost, rtol=1e-9)
    assert next(iter(found.lost)).startswith("fc/")
    assert "conv_general_dilated" in max(
        found.lost, key=lambda name: np.abs(found.lost[name]).max()
    )


def test_layers_hold_the_relevance_on_the_way():
    with enable_x64(True):
        f, x, target = network("resnet")
        target = jnp.array(target)
        options = {"composite": epsilon_plus_flat(), "conserve": True}
        found = jax.device_get(jax.jit(jaxattr.lrp_details(f, **options))(x, target))
        a = jax.jit(jaxattr.lrp(f, **options))(x, target)
        logit = jax.device_get(jax.jit(f)(x)[np.arange(2), target])
    np.testing.assert_array_equal(found.attribution, a)
    names = list(found.layers)
    assert names[0] == "fc/dot_general"
    assert names[-1] == "conv1/conv_general_dilated"
    assert found.layers["layer2/relu2/relu"].shape == (2, 5, 5, 12)
    on_the_trunk = ("avgpool/reduce_sum", "layer2/add", "layer1/add", "maxpool/reduce_window_max")
    for name in (*on_the_trunk, "conv1/conv_general_dilated"):
        total = found.layers[name].reshape(2, -1).sum(1)
        np.testing.assert_allclose(total, logit, rtol=1e-8, err_msg=name)
    shortcut = found.layers["layer2/downsample_conv/conv_general_dilated"]
    assert not np.allclose(shortcut.reshape(2, -1).sum(1), logit)


def relu_net(x, act=jax.nn.relu):
    x = average(act(conv(act(conv(x, 4, 0)), 5, 1, (2, 2))))
    return x.sum((1, 2)) @ np.random.default_rng(2).standard_normal((5, 3))


def test_lrp_0_is_gradient_times_input():
    with enable_x64(True):
        x, target = jnp.asarray(np.random.default_rng(3).standard_normal((2, 9, 8, 3))), (0, 2)
        zero = proportional(stabilizer=0.0, conserve=False)
        composite = uniform(lrp.zero())._replace(sum=zero, mean=zero)
        a = jax.jit(jaxattr.lrp(relu_net, composite=composite))(x, jnp.array(target))
        b = jax.jit(jaxattr.input_x_gradient(relu_net))(x, jnp.array(target))
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("composite", ["gamma, box", "alpha 2, beta 1"])
def test_batch_norm_is_part_of_its_layer(composite):
    """One map for a convolution with a BatchNorm and for one whose weights had it folded in."""
    rng = np.random.default_rng(4)
    scale, offset, mean, bias = rng.standard_normal((4, 5))

    def head(y):
        return jax.nn.relu(y).mean((1, 2)) @ np.linspace(-1, 1, 10).reshape(5, 2)

    w = rng.standard_normal((3, 3, 3, 5))
    run = partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    with enable_x64(True):
        x, target = jnp.asarray(rng.standard_normal((2, 5, 6, 3))), jnp.array([0, 1])
        spelled = [
            lambda x: head((run(x, w) + bias - mean) / 0.7 * scale + offset),
            lambda x: head(run(x, w * scale / 0.7) + ((bias - mean) * scale / 0.7 + offset)),
            lambda x: head(offset - (mean - bias - run(x, w)) * (scale / 0.7)),
        ]
        composite = CONSERVING[composite]
        maps = [jax.jit(jaxattr.lrp(f, composite=composite))(x, target) for f in spelled]
    assert np.abs(maps[0]).max() > 0
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-9, atol=1e-12)


def test_a_batch_norm_before_a_layer_passes_relevance_on():
    """Its shift ends where the padding begins, so it is no part of the layer that follows."""
    with enable_x64(True):
        x, target = jnp.asarray(np.random.default_rng(3).standard_normal((2, 6, 6, 3))), (0, 2)
        inside = jax.jit(jaxattr.lrp(lambda x: relu_net(batch_norm(x, 5))))(x, jnp.array(target))
        outside = jax.jit(jaxattr.lrp(relu_net))(batch_norm(x, 5), jnp.array(target))
    np.testing.assert_allclose(inside, outside, rtol=1e-9, atol=1e-12)


def test_a_scale_that_differs_from_place_to_place_stands_alone():
    places = np.random.default_rng(6).standard_normal((6, 6, 1))
    f = lambda x: (conv(x, 4, 0) * places).mean((1, 2))
    sites = jaxattr.sites(f, jnp.ones((1, 6, 6, 3)))
    assert [s.op for s in sites] == ["conv_general_dilated", "mul", "reduce_sum", "div"]


def test_loops_and_remat():
    """The same block written out, in a scan and under remat."""
    ws = np.random.default_rng(7).standard_normal((3, 4, 4))
    block = lambda x, w: (x + jax.nn.relu(x @ w), None)
    head = lambda x: x.mean((1, 2)) @ np.eye(4, 3)

    def unrolled(x, block=block):
        for w in ws:
            x, _ = block(x, w)
        return head(x)

    with enable_x64(True):
        x = jnp.asarray(np.random.default_rng(8).random((2, 3, 3, 4)))
        maps = [
            jax.jit(jaxattr.lrp(f, composite=uniform(lrp.alpha_beta())))(x, jnp.array([0, 2]))
            for f in (
                unrolled,
                partial(unrolled, block=jax.checkpoint(block)),
                lambda x: head(lax.scan(block, x, jnp.asarray(ws))[0]),
            )
        ]
        in_a_scan = lambda x: head(lax.scan(block, x, jnp.asarray(ws))[0])
        found = jax.jit(jaxattr.conservation(in_a_scan, conserve=True))(x, jnp.array([0, 2]))
        np.testing.assert_allclose(found.end, found.start, rtol=1e-8)
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-9, atol=1e-12)


def test_every_branch_that_sees_the_image_is_first_and_only_the_last_layer_is_last():
    def f(x):
        sides = [jax.nn.relu(conv(x, 2, 0)), jax.nn.relu(conv(average(x), 2, 1)).repeat(2, 1)]
        sides[1] = sides[1].repeat(2, 2)
        return jax.nn.relu(conv(jnp.concatenate(sides, -1), 3, 2)).mean((1, 2)) @ np.eye(3)

    seen = []

    def noting(name):
        def rule(r, x, layer):
            seen.append((name, layer.weight.shape))
            return lrp.epsilon()(r, x, layer)

        return rule

    rules = [noting(name) for name in ("convolution", "dense", "first", "last")]
    explain = jaxattr.lrp(f, composite=Composite(*rules))
    jax.eval_shape(explain, jnp.ones((1, 4, 4, 3)), jnp.array([0]))
    first = ("first", (3, 3, 3, 2))
    assert sorted(seen) == sorted([("last", (3, 3)), ("convolution", (3, 3, 4, 3)), first, first])


def test_a_gate_passes_relevance_to_its_signal():
    """Squeeze and excitation, as if the channel weights were constants."""

    def gate(x):
        return jax.nn.sigmoid(x.mean((1, 2), keepdims=True) @ np.eye(4)[::-1])

    def f(x, gate=gate):
        x = jax.nn.relu(conv(x, 4, 0))
        return (x * gate(x)).mean((1, 2)) @ np.linspace(-1, 1, 12).reshape(4, 3)

    with enable_x64(True):
        x, target = jnp.asarray(np.random.default_rng(3).random((2, 6, 6, 3))), jnp.array([0, 2])
        a = jax.jit(jaxattr.lrp(f))(x, target)
        constant = gate(jax.nn.relu(conv(x, 4, 0)))
        b = jax.jit(jaxattr.lrp(partial(f, gate=lambda x: constant)))(x, target)
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


LXT = [("attn", attn_lrp), ("cp", cp_lrp)]


@pytest.mark.parametrize(("name", "composite"), mostly_slow(LXT, LXT[:1]))
def test_attention_against_lxt(name, composite):
    """The explicit rules of AttnLRP's authors; where there is no stabilizer left."""
    with enable_x64(True):
        arrays = peer("attention")
        x, target = jnp.asarray(arrays["x"]), jnp.asarray(arrays["target"])
        a = jax.jit(jaxattr.lrp(vit(), composite=composite(epsilon=1e-12)))(x, target)
    assert relative_error(a, arrays[name]) < 1e-8


def test_relevance_through_attention_adds_up():
    """By default half of a product to each factor; what is lost is told, and sums lose nothing."""
    with enable_x64(True):
        x, target = images(), jnp.array([1, 3])
        found = jax.jit(jaxattr.conservation(vit(blocks=1)))(x, target)
        both = jax.jit(jaxattr.lrp(vit(blocks=1)))(x, target)
        ours = jax.jit(jaxattr.lrp(vit(blocks=1), composite=attn_lrp_vit()))(x, target)
        whole = sum(found.lost.values())
        np.testing.assert_allclose(whole, found.start - found.end, rtol=1e-9)
        halves = [k for k in found.lost if "attention/dot_general" in k]
        kept = [abs(found.lost[k]) <= 1e-4 * abs(found.arrived[k]) for k in halves[1:3]]
    np.testing.assert_allclose(both, ours, rtol=1e-9)
    assert len(halves) == 4
    assert np.all(kept)  # the projections have biases


@pytest.mark.parametrize("blocks", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_relevance_through_held_attention_is_conserved_and_bounded(blocks):
    """With `conserve` all of it; magnitudes are of the order of the logit, without biases too."""
    with enable_x64(True):
        x, target, f = images(), jnp.array([1, 3]), vit(blocks=blocks, token=False)
        logits = np.abs(f(x)[np.arange(2), target])
        given = {"composite": cp_lrp_vit(), "conserve": True}
        whole, bare = jax.jit(
            lambda x: (jaxattr.lrp(f, **given)(x, target), jaxattr.lrp(f, bias=False)(x, target))
        )(x)
        np.testing.assert_allclose(whole.sum((1, 2, 3)), f(x)[np.arange(2), target], rtol=1e-9)
        for a in (whole, bare):
            assert (np.abs(a).sum((1, 2, 3)) < 10 * logits).all()


def test_a_softmax_hands_on_what_is_above_the_mean():
    with enable_x64(True):
        z = jax.random.normal(jax.random.key(0), (2, 1, 4, 1), "float64")
        f = lambda x: jax.nn.softmax(x.reshape(2, 4))
        a = jax.jit(jaxattr.lrp(f, composite=attn_lrp()))(z, jnp.array([1, 3]))
        s, z = f(z), z.reshape(2, 4)
        above = z[np.arange(2), [1, 3]] - (s * z).sum(1)
        np.testing.assert_allclose(a.sum((1, 2, 3)), s[np.arange(2), [1, 3]] * above, rtol=1e-12)


def test_relevance_through_a_transformer_costs_less_than_three_gradients():
    with enable_x64(True):
        x, target, f = images(), jnp.array([1, 3]), vit(blocks=1)
        gradient, ours = (
            jax.jit(method(f)).lower(x, target).cost_analysis()["flops"]
            for method in (jaxattr.saliency, jaxattr.lrp)
        )
    assert ours < 3 * gradient


@pytest.mark.parametrize("name", mostly_slow(MODERN, ["grouped"]))
def test_relevance_is_conserved_through_gates_and_norms(name):
    with enable_x64(True):
        f, x, target = MODERN[name](), images(), jnp.array([1, 3])
        composite = DEFAULT._replace(attending=None)
        explain = jaxattr.lrp(f, composite=composite, conserve=True)
        account = jaxattr.conservation(f, composite=composite, conserve=True)
        a, found, logits = jax.jit(lambda x, t: (explain(x, t), account(x, t), f(x)))(x, target)
        token = found.lost.pop("concatenate", 0)  # a class token is no part of the image
        np.testing.assert_allclose(sum(found.lost.values()), 0, atol=1e-8)
        expected = logits[np.arange(2), target]
        np.testing.assert_allclose(a.sum((1, 2, 3)) + token, expected, rtol=1e-6)


def test_nothing_to_explain_gives_nothing():
    """Where all is zero relevance is finite, and conserved if asked for."""
    with enable_x64(True):
        f, x, target = network("resnet")
        x, target = jnp.zeros_like(x), jnp.array(target)
        for conserve in (False, True):
            a = jax.jit(jaxattr.lrp(f, conserve=conserve))(x, target)
            assert jnp.isfinite(a).all()
        np.testing.assert_allclose(a.sum((1, 2, 3)), jax.jit(f)(x)[np.arange(2), target], rtol=1e-8)


def attend(x):
    x = x.reshape(len(x), -1, 3)
    return (x @ x.swapaxes(1, 2) @ x).mean(1)


REFUSED = {
    "softmax": (lambda x: jax.nn.softmax(x.mean((1, 2))), "logits rather than probabilities"),
    "attention": (attend, r"dot_general.*product.*test_lrp.py"),
    "product": (lambda x: (x * x[:, ::-1]).mean((1, 2)), r"no rule for `mul` \(product"),
    "cumprod": (lambda x: jnp.cumprod(x.mean((1, 2)), 1), r"no rule for `cumprod` \(unknown"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_covers_is_refused(name):
    f, message = REFUSED[name]
    x = jnp.asarray(np.random.default_rng(0).random((1, 4, 4, 3)), jnp.float32)
    for explain in (jaxattr.lrp, jaxattr.lrp_details, jaxattr.conservation):
        with pytest.raises(jaxattr.UnsupportedOperation, match=message):
            jax.eval_shape(explain(f), x, jnp.array([0]))


def test_alpha_and_beta_must_conserve():
    with pytest.raises(ValueError, match=r"alpha is 1\.0 and beta is 1\.0; expected.*alpha - beta"):
        lrp.alpha_beta(1.0, 1.0)
