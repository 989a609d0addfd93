"""Train the small networks of the papers' experiments, with optax, in Orbax checkpoints.

    python benchmarks/train.py cifar_cnn DATA OUT [--epochs N] [--batch N] [--rate R] [--seed 0]

DATA holds `mnist.npz` and `cifar10_webp.zip`. SGD with Nesterov's momentum, for the transformer
`cifar_vit` AdamW, with clipped gradients and a cosine schedule after a warm-up; images of CIFAR-10
are flipped and shifted by a few pixels. `shapes_cnn` learns shapes that are drawn, without DATA.
`--start WEIGHTS --removed .3` goes on from trained weights with patches of the images removed,
which makes the network of IDSDS.
Every epoch is a checkpoint in OUT/epochs, from which the same command goes on after a stop;
OUT/weights holds the trained network for `jaxattr.models.load("cifar_cnn", path=OUT/weights)`,
OUT/results.csv for each epoch the accuracy on the test images, and seconds by the clock and of the
CPU.
"""

import csv
import time
import zipfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from PIL import Image
from tqdm import tqdm

import jaxattr
from jaxattr import models
from jaxattr.data.shapes import CLASSES, picture
from weights_conversion import restore, save

NETWORKS = {
    "mnist_cnn": models.mnist_cnn,
    "cifar_cnn": models.cifar_cnn,
    "cifar_vgg16": models.cifar_vgg16,
    "cifar_vit": models.cifar_vit,
    "shapes_cnn": partial(models.cifar_cnn, classes=len(CLASSES)),
}


class Recipe(NamedTuple):
    """How a network is trained where the command does not say otherwise.

    Attributes:
        descent: From a learning rate or its schedule to an optimizer.
        smoothing: The share of each label that is spread over all classes.
        shift: By how many pixels images are shifted at most, which are flipped too; none if None.
        removed: The share of the 4 x 4 patches of an image that are set to zero.
    """

    epochs: int
    batch: int
    rate: float
    descent: Callable[[Any], optax.GradientTransformation]
    smoothing: float = 0.0
    shift: int | None = 4
    removed: float = 0.0


def _momentum(rate: Any) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9, nesterov=True)
    )


PLAIN = Recipe(3, 64, 0.02, _momentum)
RECIPES = {
    "mnist_cnn": PLAIN._replace(shift=None),
    "cifar_cnn": Recipe(8, 128, 0.1, _momentum, shift=2),
    "cifar_vgg16": Recipe(8, 128, 0.1, _momentum, shift=2),
    "shapes_cnn": Recipe(3, 64, 0.05, _momentum, shift=None),
    "cifar_vit": Recipe(20, 128, 1e-3, partial(optax.adamw, weight_decay=0.05), 0.1),
}


class Data(NamedTuple):
    """Images `(n, H, W, 3)` and classes, to learn from and to test on."""

    x: np.ndarray
    label: np.ndarray
    x_test: np.ndarray
    label_test: np.ndarray


def mnist(folder: Path) -> Data:
    """Read MNIST, in [0, 1], its gray in three channels."""
    with np.load(folder / "mnist.npz") as file:
        images = (file["train_images"], file["test_images"])
        labels = (file["train_labels"], file["test_labels"])
    x, x_test = (np.repeat(a.astype(np.float32)[..., None], 3, -1) / 255 for a in images)
    label, label_test = (a.astype(np.int32) for a in labels)
    return Data(x, label, x_test, label_test)


def cifar10(folder: Path) -> Data:
    """Read CIFAR-10, in [0, 1]."""
    found = []
    with zipfile.ZipFile(folder / "cifar10_webp.zip") as archive:
        for part, strips in (("train", 100), ("test", 20)):
            read = [archive.read(f"{part}/{i:03}.webp") for i in range(strips)]
            pixels = [np.asarray(Image.open(BytesIO(r)).convert("RGB")) for r in read]
            images = np.concatenate(pixels).reshape(-1, 32, 32, 3).astype(np.float32) / 255
            found += [images, np.load(BytesIO(archive.read(f"{part}_labels.npy"))).astype(np.int32)]
    return Data(*found)


def shapes(folder: Path) -> Data:
    """Draw the shapes of `jaxattr.data.shapes`, in [0, 1]; nothing is read."""
    found = []
    for seed, number in ((1, 6000), (0, 1000)):
        drawn = [picture(i, seed=seed) for i in range(number)]
        found += [np.stack([p.image for p in drawn]).astype(np.float32) / 255]
        found += [np.array([p.label for p in drawn], np.int32)]
    return Data(*found)


READ = {"mnist": mnist, "cifar": cifar10, "shapes": shapes}
"""What a network learns, by the first word of its name."""


def scale(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of what is learned from, channel by channel.

    `jaxattr.models.load` has them with four digits.
    """
    return data.x.mean((0, 1, 2)), data.x.std((0, 1, 2))


def shifted(x: np.ndarray, rng: np.random.Generator, *, by: int) -> np.ndarray:
    """Flip half of the images, and shift each by up to so many pixels."""
    x = np.where(rng.random(len(x))[:, None, None, None] < 0.5, x[:, :, ::-1], x)
    padded = np.pad(x, ((0, 0), (by, by), (by, by), (0, 0)))
    at = rng.integers(0, 2 * by + 1, (2, len(x)))
    side = np.arange(x.shape[1])
    rows, columns = (a[:, None] + side for a in at)
    return padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None]]


def without_patches(x: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """Set a share of the 4 x 4 patches of each image to zero."""
    rows, columns = (np.arange(n) * 4 // n for n in x.shape[1:3])
    kept = (rng.random((len(x), 4, 4)) >= share)[:, rows][:, :, columns]
    return x * kept[..., None]


class Epoch(NamedTuple):
    """The share of the test images that are right after an epoch, and what it took in seconds."""

    number: int
    accuracy: float
    seconds: float
    cpu_seconds: float


def train(
    name: str, data: Data, out: Path, recipe: Recipe, *, seed: int, start: Path | None = None
) -> Iterator[Epoch]:
    """Train a network from its last checkpoint on, and yield what each epoch came to."""
    model = NETWORKS[name](rngs=nnx.Rngs(seed))
    if start is not None:
        nnx.update(model, restore(start, model))
    model.train()
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    epochs, batch = recipe.epochs, recipe.batch
    turns = len(data.x) // batch
    steps = epochs * turns
    schedule = optax.warmup_cosine_decay_schedule(0, recipe.rate, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1), recipe.descent(schedule))

    # a step at a time: XLA's gradients of weights are slow in loops on the CPU
    @jax.jit
    def step(state: Any, x: jax.Array, label: jax.Array) -> tuple[Any, jax.Array]:
        def loss(parameters: Any) -> tuple[jax.Array, Any]:
            net = nnx.merge(graph, parameters, state["rest"], copy=True)
            logits = net(x)
            wanted = jax.nn.one_hot(label, logits.shape[-1])
            wanted = optax.smooth_labels(wanted, recipe.smoothing)
            found = optax.softmax_cross_entropy(logits, wanted).mean()
            return found, nnx.split(net, nnx.Param, ...)[2]

        learn = jax.value_and_grad(jaxattr.lowered(loss), has_aux=True)
        (found, rest), grads = learn(state["parameters"])
        update, memory = optimizer.update(grads, state["memory"], state["parameters"])
        moved = optax.apply_updates(state["parameters"], update)
        return {"parameters": moved, "rest": rest, "memory": memory}, found

    state = {"parameters": parameters, "rest": rest, "memory": optimizer.init(parameters)}
    with ocp.CheckpointManager(out.resolve() / "epochs", options=_KEPT) as kept:
        last = kept.latest_step()
        if last is not None:
            state = kept.restore(last, args=ocp.args.StandardRestore(state))
        for epoch in range(0 if last is None else last + 1, epochs):
            rng, began = np.random.default_rng((seed, epoch)), _clocks()
            order = rng.permutation(len(data.x))[: turns * batch].reshape(turns, batch)
            for chosen in tqdm(order, desc=f"epoch {epoch + 1} of {epochs}", leave=False):
                x = data.x[chosen]
                x = x if recipe.shift is None else shifted(x, rng, by=recipe.shift)
                x = without_patches(x, rng, share=recipe.removed) if recipe.removed else x
                state, _ = step(state, x, data.label[chosen])
            jax.block_until_ready(state)
            spent = _clocks() - began
            kept.save(epoch, args=ocp.args.StandardSave(state))
            net = nnx.merge(graph, state["parameters"], state["rest"])
            net.eval()
            yield Epoch(epoch + 1, accuracy(net, data.x_test, data.label_test), *spent)
    net = nnx.merge(graph, state["parameters"], state["rest"])
    if not (out / "weights").exists():
        save(nnx.state(net, (nnx.Param, nnx.BatchStat)), out / "weights")


def _clocks() -> np.ndarray:
    return np.array([time.monotonic(), time.process_time()])


_KEPT = ocp.CheckpointManagerOptions(max_to_keep=1)


def accuracy(net: Any, x: np.ndarray, label: np.ndarray, size: int = 500) -> float:
    """Return the share of images whose likeliest class is theirs."""
    program = jax.jit(lambda net, x: net(x).argmax(-1))
    found = [program(net, x[i : i + size]) for i in range(0, len(x), size)]
    return float(jnp.mean(jnp.concatenate(found) == label))


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    for name, kind in (("epochs", int), ("batch", int), ("rate", float), ("removed", float)):
        usual = ", ".join(f"{getattr(recipe, name)} for {n}" for n, recipe in RECIPES.items())
        parser.add_argument(f"--{name}", type=kind, help=f"[default: {usual}]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights to go on from, as for fine-tuning")
    parser.add_argument("--limit", type=int, help="learn from the first images only")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = READ[options.network.partition("_")[0]](options.data)
    mean, deviation = scale(data)
    data = data._replace(x=(data.x - mean) / deviation, x_test=(data.x_test - mean) / deviation)
    data = data._replace(x=data.x[: options.limit], label=data.label[: options.limit])
    given = {
        k: v
        for k in ("epochs", "batch", "rate", "removed")
        if (v := getattr(options, k)) is not None
    }
    recipe = RECIPES[options.network]._replace(**given)
    with (options.out / "results.csv").open("a", newline="") as file:
        for found in train(
            options.network, data, options.out, recipe, seed=options.seed, start=options.start
        ):
            number, share, seconds, of_cpu = found
            csv.writer(file).writerow((number, f"{share:.4f}", f"{seconds:.1f}", f"{of_cpu:.1f}"))
            file.flush()
            print(
                f"epoch {number}: {100 * share:.2f} % of the test images, {seconds:.0f} s, "
                f"{of_cpu:.0f} s of the CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
