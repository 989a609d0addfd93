"""Batches of records."""

import numpy as np
import pytest

from jaxattr.data import Source, batches, record
from jaxattr.data.reading import shard

pytest.importorskip("grain")


def read(i):
    if i == 4:
        raise ValueError("number 4 cannot be read as an image")
    return record(str(i), np.full((3 + i, 5, 3), i, np.uint8), labels=[i % 3])


SOURCE = Source("made up", ("a", "b", "c"), range(11), read)
PREPARE = lambda image: np.asarray(image.resize((2, 2)), np.float32)


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_are_in_order_and_name_what_failed(threads):
    found = list(batches(SOURCE, PREPARE, size=4, threads=threads))
    assert [b.indices.tolist() for b in found] == [[0, 1, 2, 3], [5, 6, 7], [8, 9, 10]]
    assert [b.inputs.shape for b in found] == [(4, 2, 2, 3), (3, 2, 2, 3), (3, 2, 2, 3)]
    assert [f for b in found for f in b.failures] == [(4, "number 4 cannot be read as an image")]
    for b in found:
        for i, r, x in zip(b.indices, b.records, b.inputs, strict=True):
            assert (r.id, x[0, 0, 0]) == (str(i), i)


def test_shards_and_the_rest_after_a_stop():
    parts = [shard(11, i, 3) for i in range(3)]
    assert [i for part in parts for i in part] == list(range(11))
    found = [b.indices.tolist() for b in batches(SOURCE, PREPARE, size=2, indices=parts[2][1:])]
    assert found == [[8, 9], [10]]
    assert not list(batches(SOURCE, PREPARE, size=2, indices=[]))
    (only,) = batches(SOURCE, PREPARE, size=2, indices=[4])
    assert only.inputs.shape == (0,)
    with pytest.raises(ValueError, match="no shard 3 of 3"):
        shard(11, 3, 3)
    with pytest.raises(ValueError, match="batch of 0 records"):
        next(batches(SOURCE, PREPARE, size=0))


def test_a_fault_of_the_program_is_no_bad_record():
    def broken(image):
        raise TypeError("not a function of images")

    with pytest.raises(TypeError, match="not a function of images"):
        next(batches(SOURCE, broken, size=2))
