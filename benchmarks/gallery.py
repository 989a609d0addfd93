"""What do the methods' maps look like, side by side?

    python benchmarks/gallery.py docs/gallery [--methods dmbp,lrp]

EfficientNet-Lite0's maps of photographs that scikit-image carries, a strip for each method:

    tiger cat     what the network says of the photograph
    tripod        the same, of a thing that is thin and in front of a person
    two objects   four photographs as one, explained for the cat, then for the cup of espresso
    a mistake     a clock out of focus, taken for a bubble
    random        the cat once more, by the network with a random classifier: a map that shows what
                  the network has learned cannot stay as it was

OUT/METHOD.webp is a method's strip, OUT/photographs.webp what it explains. A strip that is there is
not drawn again. Methods of many steps take fewer of them, as in `scoreboard.py`.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image
from scoreboard import explain
from tqdm import tqdm

from jaxattr import catalogue, metrics, models, viz
from jaxattr.data.sources import Source, open_source
from jaxattr.image import maps

CAT, TRIPOD, ESPRESSO, BUBBLE = 282, 872, 967, 971
TILE, GAP = 160, 8  # pixels


class Scene(NamedTuple):
    """A tile of every strip.

    Attributes:
        image: uint8 `(H, W, 3)` as the network sees it.
        target: the class that is explained.
        net: that is explained.
    """

    image: np.ndarray
    target: int
    net: Callable


def scenes(net: Any, preprocess: models.Preprocess, source: Source) -> list[Scene]:
    """Return what is explained, in the order of a strip."""
    seen = lambda name: np.asarray(preprocess.display(Image.fromarray(named(source, name))))
    cat, coffee, camera, motorcycle = map(seen, ("chelsea", "coffee", "camera", "motorcycle_left"))
    four = np.concatenate([np.hstack((cat, motorcycle)), np.hstack((camera, coffee))])
    grid = np.asarray(Image.fromarray(four).resize(cat.shape[1::-1], Image.Resampling.BOX))
    graph, parameters, rest = nnx.split(net, nnx.Param, ...)
    key = jax.random.key(0)
    random = nnx.merge(graph, metrics.randomize_parameters(parameters, ["fc"], key=key), rest)
    return [
        Scene(cat, CAT, net),
        Scene(camera, TRIPOD, net),
        Scene(grid, CAT, net),
        Scene(grid, ESPRESSO, net),
        Scene(seen("clock_motion"), BUBBLE, net),
        Scene(cat, CAT, random),
    ]


def named(source: Source, name: str) -> np.ndarray:
    """Return the photograph of this name."""
    (path,) = (key for key in source.keys if key.stem == name)
    return source.read(path).image


def tile(image: np.ndarray, a: jax.Array) -> np.ndarray:
    """Draw a map: one of a single channel over its photograph, another on white."""
    size = image.shape[:2]
    full = np.asarray(maps.resize(a[None], size)[0] if a.shape[:2] != size else a)
    return viz.overlay(image if a.shape[-1] == 1 else np.full_like(image, 255), full)


def strip(tiles: list[np.ndarray]) -> Image.Image:
    """Put tiles of values in [0, 1] side by side."""
    found = Image.new("RGB", (len(tiles) * (TILE + GAP) - GAP, TILE), "white")
    for i, values in enumerate(tiles):
        picture = Image.fromarray(np.uint8(255 * values.clip(0, 1)))
        found.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (i * (TILE + GAP), 0))
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", help="names with commas between them; by default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    net, preprocess, _ = models.load("efficientnet_lite0")
    shown = scenes(net, preprocess, open_source("skimage:all"))
    strip([scene.image / 255 for scene in shown]).save(options.out / "photographs.webp", quality=85)
    names = options.methods.split(",") if options.methods else list(catalogue.METHODS)
    for name in tqdm([n for n in names if not (options.out / f"{n}.webp").exists()]):
        tiles = []
        for scene in shown:
            x = jnp.asarray(preprocess(Image.fromarray(scene.image)))[None]
            target, key = jnp.array([scene.target]), jax.random.key(0)
            tiles.append(tile(scene.image, explain(name, scene.net, x, target, key)[0]))
        strip(tiles).save(options.out / f"{name}.webp", quality=85)


if __name__ == "__main__":
    main()
