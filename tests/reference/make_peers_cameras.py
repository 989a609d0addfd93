"""Write `peers_cameras.npz`: CAMERAS by its authors' code.

    git clone https://github.com/VisMIL/CAMERAS
    python tests/reference/make_peers_cameras.py CAMERAS

in an environment with the project, its `test` group and torch 2.13.0 (CPU). The code is called
where it lies; it asks for a GPU, so `cuda` is made to do nothing. `resnet` and the first two images
of `make_peers.py`, cut to 18x18 since the code knows squares only, float64.

`{layer}` is the map, scaled to [0, 1], at the resolutions of `resolutions`, all of which count
since the class is given. `bicubic` is the first image at the largest of them. Maps channels first.
"""

import sys

import numpy as np
import torch
from torch.nn.functional import interpolate
from torch_nets import HERE, load

RESOLUTIONS = (18, 26, 35)

if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    torch.Tensor.cuda = lambda self, *_: self
    from CAMERAS import CAMERAS  # type: ignore[reportMissingImports]

    model, x, target = load("resnet")
    model.requires_grad_(True)
    x, target = x[:2, :, :18, :18], target[:2]
    arrays = {"resolutions": np.array(RESOLUTIONS)}
    for layer in ("layer1", "layer2"):
        method = CAMERAS(model, layer, list(RESOLUTIONS))
        maps = [method.run(x[i : i + 1], int(target[i])).detach() for i in range(2)]
        arrays[layer] = torch.stack(maps)[:, None].numpy()
    size = (RESOLUTIONS[-1], RESOLUTIONS[-1])
    arrays["bicubic"] = interpolate(x, size, mode="bicubic", align_corners=False).numpy()
    np.savez_compressed(HERE / "peers_cameras.npz", **arrays)
