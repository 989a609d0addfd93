"""Regions refined by a fully connected CRF, so that their borders follow the image's."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_positive
from jaxattr.loops import host
from jaxattr.metrics.iou import Region, positive_region
from jaxattr.types import Array


def dense_crf(
    images: Array,
    *,
    region: Region = positive_region,
    certainty: float = 0.7,
    w1: float = 10.0,
    theta_alpha: float = 80.0,
    theta_beta: float = 13.0,
    w2: float = 3.0,
    theta_gamma: float = 3.0,
    steps: int = 5,
) -> Region:
    """Refine the region that a map marks by the colors of the image.

        E(m) = -sum_i log c(m_i) + sum_{i<j} [m_i != m_j] k_ij,
        k_ij = w1 exp(-|p_i - p_j|^2 / 2 theta_alpha^2 - |I_i - I_j|^2 / 2 theta_beta^2)
               + w2 exp(-|p_i - p_j|^2 / 2 theta_gamma^2)    (eq. 3; p positions, I colors)

    minimized by mean-field inference. `c` is `certainty` where `m` agrees with `region` and
    `1 - certainty` where it does not. Each kernel is divided by the square roots of its sums at `i`
    and at `j`. Pixels that do not count are undecided, `c = 1/2`; padding around an image is left
    out. Laws: without pairs (`w1 = w2 = 0`) it is `region`; equals the mean field with all pairs
    written out.

    Args:
        images: as they are, uint8 `(B, H, W, 3)`, of the height and width of the masks that the
            maps are compared with, padded like them.
        region: maps to the pixels that they mark.
        certainty: the probability that these are right, in (0.5, 1).
        w1: weight of pairs that are near each other and of similar color.
        theta_alpha: standard deviation of their distance, in pixels.
        theta_beta: standard deviation of their colors, on the scale of 0 to 255.
        w2: weight of pairs that are near each other.
        theta_gamma: standard deviation of their distance, in pixels.
        steps: iterations of the mean field.

    Returns:
        A region, for `segmentation_iou(..., region=dense_crf(images))`. It runs on the host, an
        image at a time, under `jit` too.

    Raises:
        ModuleNotFoundError: if pydensecrf2, which does the inference, is not installed.
        ValueError: if an option is out of range, or `images` have another shape or dtype.

    Reference:
        Kraehenbuehl and Koltun, Efficient inference in fully connected CRFs with Gaussian edge
        potentials, NIPS 2011. Defaults are those of pydensecrf's example; the papers that report
        refined regions do not give theirs.
    """
    if find_spec("pydensecrf") is None:
        raise ModuleNotFoundError(
            "dense CRFs are pydensecrf2's, which is not installed: pip install 'jaxattr[crf]'",
            name="pydensecrf",
        )
    if not 0.5 < certainty < 1:
        raise ValueError(f"certainty is {certainty}; expected more than 0.5 and less than 1")
    for name, weight in (("w1", w1), ("w2", w2)):
        if not 0 <= weight < np.inf:
            raise ValueError(f"{name} is {weight}; expected 0 or more")
    thetas = {"theta_alpha": theta_alpha, "theta_beta": theta_beta, "theta_gamma": theta_gamma}
    for name, theta in thetas.items():
        if not 0 < theta < np.inf:
            raise ValueError(f"{name} is {theta}; expected more than 0")
    check_positive("steps", steps)

    def infer(image: np.ndarray, marked: np.ndarray, counted: np.ndarray) -> np.ndarray:
        from pydensecrf import densecrf  # type: ignore[reportMissingImports]

        height, width = (np.flatnonzero(counted.any(axis)).max(initial=-1) + 1 for axis in (1, 0))
        found = np.zeros_like(marked)
        if height * width == 0:
            return found
        image, marked, counted = (a[:height, :width] for a in (image, marked, counted))
        c = np.where(counted, np.where(marked, certainty, 1 - certainty), 0.5).ravel()
        field = densecrf.DenseCRF2D(width, height, 2)
        field.setUnaryEnergy(-np.log([1 - c, c]).astype(np.float32))
        field.addPairwiseGaussian(sxy=theta_gamma, compat=w2)
        colors = np.ascontiguousarray(image)
        field.addPairwiseBilateral(sxy=theta_alpha, srgb=theta_beta, rgbim=colors, compat=w1)
        background, thing = np.asarray(field.inference(steps))
        found[:height, :width] = (thing > background).reshape(height, width)
        return found

    def refined(scores: Array) -> Array:
        if images.shape != (*scores.shape, 3) or images.dtype != np.uint8:
            raise ValueError(
                f"images have shape {images.shape} and dtype {images.dtype}; expected uint8 "
                f"{(*scores.shape, 3)}, like the masks"
            )
        shape = jax.ShapeDtypeStruct(scores.shape[1:], jnp.bool_)
        known = jnp.asarray(images), region(scores), jnp.isfinite(scores)
        return host.call_each(infer, shape, *known)

    return refined
