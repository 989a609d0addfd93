"""Where a pixel of a photograph lies in a model's input, and the way back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """A resize and a crop: the point `p` of a photograph lies at `scale p + offset` of the input.

    Points are measured from the upper left corner, the center of the first pixel is at 1/2.
    Ground truth goes to the input by `boxes` and `mask`, maps go back to the photograph by
    `to_photograph`.

    Law: `mask(m)` of a box's pixels are the pixels of `boxes`, for every resize and crop.

    Attributes:
        size: height and width of the photograph.
        input_size: height and width of the input.
        scale: input pixels in a pixel of the photograph, down and across.
        offset: where the photograph's corner lies in the input, down and across.
    """

    size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    @classmethod
    def resized(
        cls, size: tuple[int, int], to: tuple[int, int], crop: tuple[int, int, int, int] | None
    ) -> Geometry:
        """Return the geometry of a resize of `size` to `to`, then a crop to the box `crop`.

        >>> Geometry.resized((40, 60), (20, 30), (0, 5, 20, 25)).boxes([[0, 10, 40, 50]]).tolist()
        [[0, 0, 20, 20]]
        """
        top, left, bottom, right = crop or (0, 0, *to)
        scale = (to[0] / size[0], to[1] / size[1])
        return cls(size, (bottom - top, right - left), scale, (-top, -left))

    @property
    def visible(self) -> tuple[int, int, int, int]:
        """The part of the photograph that the input shows, to whole pixels: a box as in records."""
        first = [round(max(-o / s, 0)) for o, s in zip(self.offset, self.scale, strict=True)]
        parts = zip(self.input_size, self.offset, self.scale, self.size, strict=True)
        end = [round(min((n - o) / s, length)) for n, o, s, length in parts]
        return first[0], first[1], end[0], end[1]

    def boxes(self, boxes: Any) -> np.ndarray:
        """Return boxes `(n, 4)` of the photograph as boxes of the input.

        They hold the pixels whose centers lie inside; boxes that the crop leaves out are zeros.
        """
        edges = np.asarray(boxes, float).reshape(-1, 2, 2)
        moved = np.ceil(edges * self.scale + self.offset - 0.5)
        inside = np.clip(moved, 0, self.input_size).astype(np.int64)
        kept = np.all(inside[:, 0] < inside[:, 1], 1, keepdims=True)
        return np.where(kept, inside.reshape(-1, 4), 0)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return what `(..., H, W)` of the photograph holds at the centers of the input's pixels.

        Outside the photograph is False, or 0.
        """
        for axis in (0, 1):
            length = self.size[axis]
            center = (np.arange(self.input_size[axis]) + 0.5 - self.offset[axis]) / self.scale[axis]
            at = np.floor(center).astype(int)
            where = ((at >= 0) & (at < length)).astype(mask.dtype)
            mask = np.take(mask, at.clip(0, length - 1), axis - 2)
            mask = mask * where.reshape(-1, *(1,) * (1 - axis))
        return mask

    def to_photograph(self, maps: Any) -> Any:
        """Return maps `(..., h, w)` of the input at the pixels of the photograph `(..., H, W)`.

        Bilinear between the centers of the input's pixels, and their edge values beyond the
        outermost centers; 0 where the crop left the photograph out, which the model does not see.
        Maps of another resolution than the input are taken to cover it.
        """
        rows, columns = (self._weights(axis, maps.shape[axis - 2]) for axis in (0, 1))
        dtype = np.result_type(maps.dtype, np.float32)
        return rows.astype(dtype) @ maps @ columns.astype(dtype).T

    def _weights(self, axis: int, length: int) -> np.ndarray:
        """Return the bilinear weights `(pixels of the photograph, length)` along an axis."""
        point = (np.arange(self.size[axis]) + 0.5) * self.scale[axis] + self.offset[axis]
        seen = (point >= 0) & (point <= self.input_size[axis])
        at = (point * length / self.input_size[axis] - 0.5).clip(0, length - 1)
        distance = np.abs(at[:, None] - np.arange(length))
        return np.maximum(1 - distance, 0) * seen[:, None]
