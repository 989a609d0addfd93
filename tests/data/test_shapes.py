"""Drawn pictures: what tells the class, and what does not."""

import numpy as np
import pytest

from jaxattr.data import class_mask, open_source
from jaxattr.data.shapes import CLASSES, picture


def test_the_parts_alone_tell_the_class():
    drawn = [picture(i) for i in range(60)]
    assert {p.label for p in drawn} == set(range(len(CLASSES)))
    places = {}
    for i, whole in enumerate(drawn):
        assert not (whole.parts[0] & whole.parts[1]).any()
        assert not (whole.parts.any(0) & whole.distractors).any()
        for part in (0, 1):
            changed = (picture(i, without=(part,)).image != whole.image).any(-1)
            assert (changed == whole.parts[part]).mean() > 0.99
            assert not changed[~whole.parts[part]].any()
            height, width = np.ptp(np.argwhere(whole.parts[part]), 0) + 1
            kind = CLASSES[whole.label].split(" and ")[part]
            places.setdefault(kind, []).append(whole.parts[part].sum() / (height * width))
    assert min(places["square"]) == 1  # a shape is what its name says
    assert 0.59 < min(places["disk"]) <= max(places["disk"]) < 0.8
    assert max(places["triangle"]) < 0.59


def test_they_are_a_data_set():
    source, other = open_source("shapes:5"), open_source("shapes:5", split="train")
    assert len(source) == 5
    assert source.classes == CLASSES
    assert not (source[1].image == other[1].image).all()
    drawn, record = picture(2), source[2]
    np.testing.assert_array_equal(record.image, drawn.image)
    np.testing.assert_array_equal(class_mask(record, drawn.label), drawn.parts.any(0))
    for (r0, c0, r1, c1), part in zip(record.boxes, drawn.parts, strict=True):
        assert part[r0:r1, c0:c1].sum() == part.sum()
    with pytest.raises(ValueError, match="shapes:many names no number of pictures"):
        open_source("shapes:many")
    with pytest.raises(ValueError, match="no split 'val', but train and test"):
        open_source("shapes:5", split="val")
