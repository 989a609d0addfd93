"""torchvision's own model definitions, with random weights that leave nothing at its default."""

import sys
from types import ModuleType
from typing import Any

import numpy as np

_operators: Any = None  # kept alive, or torch forgets what it declares


def import_torchvision() -> ModuleType:
    """Import `torchvision`; `conftest.py` makes a fixture of it.

    A wheel built for another torch cannot load its compiled operators. The models need none of
    them, but the import asks for two, which are declared by name only.
    """
    global _operators
    import torch

    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _operators = torch.library.Library("torchvision", "DEF")
        _operators.define("nms() -> Tensor")
        _operators.define("qnms() -> Tensor")
        import torchvision
    return torchvision


def random_model(torchvision: ModuleType, name: str, *, seed: int = 0, **options: Any) -> Any:
    """Build a torchvision model in evaluation mode with random weights, biases and statistics.

    The scales keep the activations of the deepest models of order one.
    """
    import torch

    model = blank_model(torchvision, name, **options).eval()
    if any(v.device.type == "meta" for v in model.state_dict().values()):
        model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.zero_()
        elif not value.is_floating_point():
            continue
        elif value.ndim > 1:
            reach = (6 / value[0].numel()) ** 0.5  # variance 2 / inputs, as He et al.
            value.uniform_(-reach, reach, generator=generator)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith(("bn3.weight", "bn2.weight")) and "layer" in key:
            value.uniform_(0.1, 0.5, generator=generator)  # residual branches add up
        elif key.endswith(".weight"):
            value.uniform_(0.5, 1.2, generator=generator)
        else:
            value.uniform_(-0.3, 0.3, generator=generator)
    return model


def blank_model(torchvision: ModuleType, name: str, **options: Any) -> Any:
    """Build a torchvision model without weights where its definition computes no value."""
    import torch

    with torch.device("cpu" if name.startswith(("regnet", "swin")) else "meta"):
        return torchvision.models.get_model(name, **options)


def arrays(model: Any) -> dict[str, np.ndarray]:
    """Return a model's state dict as arrays on the same memory."""
    return {key: value.numpy() for key, value in model.state_dict().items()}
