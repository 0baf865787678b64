"""A tiny model with random weights, saved once."""

from pathlib import Path

import pytest

from tests.inference.evaluation_cases import tiny_model


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory) -> Path:
    """Folder of a model with absorbing diffusion."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    return folder
