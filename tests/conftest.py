"""Paths and skips shared by the tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party photographs and checkpoints, which the project cannot ship."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data in {SHARED}, which is not part of the repository")
    return SHARED
