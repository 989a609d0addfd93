"""Arrays that other libraries wrote, and the measure by which ours are held against them."""

from pathlib import Path

import numpy as np
from jax.typing import ArrayLike

REFERENCE = Path(__file__).parent / "reference"


def peer(file: str) -> dict[str, np.ndarray]:
    """Read `reference/peers_{file}.npz`: maps as `(..., H, W, C)`, weights as torch's."""
    with np.load(REFERENCE / f"peers_{file}.npz") as arrays:
        return {
            name: np.moveaxis(a, -3, -1) if a.ndim >= 4 and not name.startswith("net.") else a
            for name, a in arrays.items()
        }


def relative_error(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Return `max|ours - theirs| / max|theirs|`; the shapes must be equal."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.shape != theirs.shape:
        raise AssertionError(f"ours has shape {ours.shape}, theirs {theirs.shape}")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
