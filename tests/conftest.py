"""What the tests share: libraries and data that a machine may lack, and how programs compile."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import jax
import pytest
from jax._src.interpreters import mlir
from torchvision_definitions import import_torchvision

pytest_plugins = ["tiny_command_line"]

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Most of the tests' time goes into compiling small programs. XLA's older way of writing fused
# loops, in one piece, takes half of it. XLA stops at a flag that it does not know, so that later
# releases do without them until someone has tried.
XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

MEMORY = 1.5e9  # bytes in one worker, above which programs are dropped


def pytest_configure(config: pytest.Config) -> None:
    """Compile fast, and nothing twice: programs are kept from one run to the next."""
    if jax.__version_info__ < (0, 12):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}"
    jax.config.update("jax_disable_most_optimizations", True)
    if hasattr(mlir, "make_ir_context"):  # loads its dialects: a fifth of a small program's time
        mlir.make_ir_context = cache(mlir.make_ir_context)
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


def resident() -> float:
    """Return the process's memory in bytes, where it can be told."""
    if sys.platform != "linux":
        return float("inf")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture(autouse=True, scope="module")
def forgetful() -> Iterator[None]:
    """Drop the programs after a file when they fill much memory; until then files share them."""
    yield
    if resident() < MEMORY:
        return
    jax.clear_caches()
    getattr(mlir.make_ir_context, "cache_clear", lambda: None)()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def optimized() -> Iterator[None]:
    """Compile as users do: for large models, and for what is said of a program's memory."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
