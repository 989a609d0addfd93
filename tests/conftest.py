"""What the tests share: libraries and data that a machine may lack, and how programs compile."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest
from torchvision_definitions import import_torchvision

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Most of the tests' time goes into compiling small programs. XLA's older way of writing fused
# loops, in one piece, takes half of it. XLA stops at a flag that it does not know, so that later
# releases do without them until someone has tried.
XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def pytest_configure(config: pytest.Config) -> None:
    """Compile fast, and nothing twice: programs are kept from one run to the next."""
    if jax.__version_info__ < (0, 12):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}"
    jax.config.update("jax_disable_most_optimizations", True)
    gc.set_threshold(100_000, 20, 100)  # tracing makes many objects that live
    if config.pluginmanager.hasplugin("cacheprovider") and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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


@pytest.fixture(autouse=True, scope="module")
def forgetful() -> Iterator[None]:
    """Drop a file's programs after it, for memory's sake: thousands slow down those to come."""
    yield
    jax.clear_caches()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def optimized() -> Iterator[None]:
    """Compile as users do: for large models, and for what is said of a program's memory."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
