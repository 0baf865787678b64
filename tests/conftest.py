"""What tests of all rooms share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Large real data sets beside the checkout, in `../shared/data`; tests that need them are skipped without."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the large data sets are not beside this checkout")
    return folder


@pytest.fixture
def ship(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Have the package ship other models for one test: `ship(design=folder)` gives the folder that they are in."""
    weights = tmp_path / "shipped"

    def put(**folders: Path) -> Path:
        weights.mkdir()
        for name, folder in folders.items():
            shutil.copytree(folder, weights / name)
        monkeypatch.setattr("protein_model.which_model.WEIGHTS", weights)
        return weights

    return put


@pytest.fixture(autouse=True)
def small_numbers_are_there():
    """A training run treats them as zero from then on, which other tests have not asked for."""
    yield
    torch.set_flush_denormal(False)
