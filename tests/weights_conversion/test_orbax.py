"""Checkpoints of Orbax, read as torch's are."""

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from weights_conversion import CheckpointError, convert, open_checkpoint, save


class Upwards(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.ConvTranspose(2, 2, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(8, 2, rngs=rngs)
        self.scale = nnx.Param(np.arange(2, dtype=np.float32))


def test_layers_that_torch_has_in_another_order(tmp_path):
    model = Upwards(nnx.Rngs(0))
    save(nnx.state(model), tmp_path / "weights")
    read = open_checkpoint(tmp_path / "weights")
    found = convert(read, model, flatten={"dense": (2, 2, 2)})  # as torch's file would need it
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        np.testing.assert_array_equal(dict(nnx.to_flat_state(found))[path][...], variable[...])


def test_one_of_several_items_is_asked_for(tmp_path):
    with ocp.CheckpointManager(tmp_path) as writer:
        for step in (9, 10):
            items = {n: ocp.args.StandardSave({n: np.full(2, 1.0 * step)}) for n in ("ema", "net")}
            writer.save(step, args=ocp.args.Composite(**items))
    np.testing.assert_array_equal(open_checkpoint(tmp_path, key="net")["net"], [10, 10])
    np.testing.assert_array_equal(open_checkpoint(tmp_path, key="ema")["ema"], [10, 10])
    with pytest.raises(CheckpointError, match="key is the name of one of its items: ema, net"):
        open_checkpoint(tmp_path)


def test_damage_is_told(tmp_path):
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "net", {"kernel": np.zeros(3)})
    assert open_checkpoint(tmp_path / "net")["weight"].shape == (3,)
    (tmp_path / "net" / "manifest.ocdbt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="it is damaged, or was not written to its end"):
        open_checkpoint(tmp_path / "net")
