"""XRAI: regions of the image, by the attribution that lies in them."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import attribution, check_positive
from jaxattr.facts import method
from jaxattr.loops import host
from jaxattr.loops.progress import Progress
from jaxattr.methods.integrated_gradients import integrated_gradients
from jaxattr.types import Array, Attribution, Fun

Segments: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From an image `(H, W, C)` to masks of its parts, which may overlap, `(N, H, W)` of bool."""

Growth: TypeAlias = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From masks `(N, P)`, an attribution `(P,)` and the fewest pixels of a region to labels `(P,)`."""

SCALES = (50, 100, 150, 250, 500, 1200)


@method(
    cost="2 x steps x (1 forward, 1 backward), and segments on the host",
    family="paths",
    spatial=True,
)
def xrai(
    f: Fun,
    *,
    attribute: Attribution | None = None,
    steps: int = 100,
    chunk: int = 1,
    segments: Segments | None = None,
    grow: Growth | None = None,
    min_pixels: int = 50,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute to regions: the image's segments, those with the densest attribution first.

    The image is segmented at several scales. Of an attribution `A`, the largest over a pixel's
    channels, regions are made of the segments, one after the other: that with the highest mean of
    `A` over what it adds is next, and what it adds is a region.

        a_p = mean of A over the region of pixel p

    What no segment covers is a region too. Laws: `a` sums to what `A` does; equals PAIR's arrays
    for the same segments.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        attribute: what gives `A`. By default it is the mean of two integrated gradients, from an
            image of the darkest and from one of the brightest value in the image.
        steps: of each.
        chunk: of each.
        segments: image to masks; `felzenszwalb` by default.
        grow: how regions grow; `greedily` by default. `at_once` ranks segments without regard to
            how they overlap, which is quicker and less exact.
        min_pixels: what adds fewer pixels is no region of its own.
        progress: called with the number of points of both integrals done, up to a hundred times
            for each.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: that of `A`. Segments are found and grown on
        the host, also under `jit`, about a second for a photograph.

    Raises:
        ModuleNotFoundError: if scikit-image, which segments the image, is not installed.
        ValueError: if an option that counts something is not positive.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> f = lambda x: x.sum((1, 2))
        >>> halves = lambda image: np.array([[[True, True, False]], [[False, True, True]]])
        >>> x, target = jnp.array([1.0, 2.0, 6.0]).reshape(1, 1, 3, 1), jnp.array([0])
        >>> attribute = lambda x, target, *, key=None: x
        >>> xrai(f, attribute=attribute, segments=halves, min_pixels=1)(x, target).ravel()
        Array([1., 4., 4.], dtype=float32)

    Reference:
        Kapishnikov, Bolukbasi, Viegas and Terry, XRAI, ICCV 2019.

    Differs from PAIR's code in the rule by which integrated gradients are summed up.
    """
    for name, value in (("steps", steps), ("chunk", chunk), ("min_pixels", min_pixels)):
        check_positive(name, value)
    if segments is None and find_spec("skimage") is None:
        raise ModuleNotFoundError(
            "XRAI segments images with scikit-image: pip install 'jaxattr[xrai]', or pass "
            "segments=..."
        )
    cut, join = segments or felzenszwalb, grow or greedily

    def base(x: Array, target: Array, key: Any) -> Array:
        if attribute is not None:
            return attribute(x, target, key=key)
        axes = (1, 2, 3)
        ends = (x.min(axes, keepdims=True), x.max(axes, keepdims=True))

        def later(done: int) -> None:
            if progress is not None:
                progress(steps + done)

        integrate = partial(integrated_gradients, f, steps=steps, chunk=chunk)
        dark = integrate(baseline=ends[0], progress=progress)(x, target)
        return (dark + integrate(baseline=ends[1], progress=progress and later)(x, target)) / 2

    def label(image: np.ndarray, a: np.ndarray) -> np.ndarray:
        image, a = np.asarray(image, float), np.asarray(a, float)
        found = join(_flat(cut(image), image), a.ravel(), min_pixels)
        return found.reshape(a.shape).astype(np.int32)

    def explain(x: Array, target: Array, key: Any) -> Array:
        evidence = base(x, target, key)
        largest = evidence.argmax(-1, keepdims=True)  # its derivative is one channel's, ties or not
        a = jnp.take_along_axis(evidence, largest, -1)[..., 0]
        shape = jax.ShapeDtypeStruct(a.shape[1:], jnp.int32)
        known = jax.lax.stop_gradient((x, a))
        labels = host.call_each(label, shape, *known)
        return jax.vmap(_means)(a, labels)[..., None]

    return attribution(f, explain)


def _flat(masks: np.ndarray, image: np.ndarray) -> np.ndarray:
    masks = np.asarray(masks, bool)
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(
            f"the segments have shape {masks.shape}; expected (segments, "
            f"{image.shape[0]}, {image.shape[1]})"
        )
    return masks.reshape(len(masks), -1)


def _means(a: Array, labels: Array) -> Array:
    """Return the mean of `a` over the pixels of the same label."""
    place, n = labels.ravel(), a.size + 1
    sums = jnp.zeros(n, a.dtype).at[place].add(a.ravel())
    counts = jnp.zeros(n, a.dtype).at[place].add(1)
    return (sums[place] / counts[place]).reshape(a.shape)


def greedily(masks: np.ndarray, a: np.ndarray, least: int) -> np.ndarray:
    """Add the segment of highest mean over what it adds, until none adds enough.

    Args:
        masks: `(N, P)`.
        a: the attribution, `(P,)`.
        least: the fewest pixels that a segment must add.

    Returns:
        The number of each pixel's region in the order of growth, from 1; 0 where none is.
    """
    new, labels = masks.copy(), np.zeros(a.shape, int)
    counts, sums = new.sum(1), new @ a
    while (enough := counts >= least).any():
        means = np.where(enough, sums / np.maximum(counts, 1), -np.inf)
        added = np.flatnonzero(new[means.argmax()])
        labels[added] = labels.max() + 1
        taken = new[:, added]
        counts -= taken.sum(1)
        sums -= taken @ a[added]
        new[:, added] = False
    return labels


def at_once(masks: np.ndarray, a: np.ndarray, least: int) -> np.ndarray:
    """Add segments in the order of their means, each as far as none before it covers it."""
    labels = np.zeros(a.shape, int)
    means = masks @ a / np.maximum(masks.sum(1), 1)
    for mask in masks[np.argsort(-means, kind="stable")]:
        added = mask & (labels == 0)
        if added.sum() >= least:
            labels[added] = labels.max() + 1
    return labels


def felzenszwalb(image: np.ndarray) -> np.ndarray:
    """Segment an image at six scales by Felzenszwalb and Huttenlocher's graphs (IJCV 2004).

    The image is scaled to [-1, 1] and resized to 224x224, where each segment has at least 150
    pixels; segments are widened by 5 pixels, so that they take in their edges.

    Args:
        image: `(H, W, C)`.

    Returns:
        Masks `(N, H, W)`, which overlap.
    """
    from scipy import ndimage
    from skimage import segmentation, transform

    low, high = image.min(), image.max()
    scaled = 2 * (image - low) / (high - low if high > low else 1) - 1
    seen = transform.resize(
        scaled, (224, 224), order=3, mode="constant", preserve_range=True, anti_aliasing=True
    )
    size, masks = image.shape[:2], []
    for scale in SCALES:
        labels: Any = segmentation.felzenszwalb(seen, scale=scale, sigma=0.8, min_size=150)
        labels = transform.resize(
            labels, size, order=0, mode="constant", preserve_range=True, anti_aliasing=False
        )
        for value in np.unique(labels):
            distance: Any = ndimage.distance_transform_edt(labels != value)
            masks.append(distance <= 5)
    return np.stack(masks)
