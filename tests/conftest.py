"""What the tests share: libraries and data that a machine may lack, and how programs compile."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest
from torchvision_definitions import import_torchvision

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party photographs and checkpoints, which the project cannot ship."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data in {SHARED}, which is not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """Return torch, with which tests compare; the project itself never imports it."""
    return pytest.importorskip("torch", reason="compares with torch")


@pytest.fixture(scope="session")
def torchvision(torch: ModuleType) -> ModuleType:
    """Return torchvision, with which tests compare."""
    try:
        return import_torchvision()
    except ModuleNotFoundError:
        pytest.skip("compares with torchvision")


@pytest.fixture
def unoptimized() -> Iterator[None]:
    """Compile without optimising, twice as fast: for tests of many small programs."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
