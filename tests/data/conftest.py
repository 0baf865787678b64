"""What tests of the data room share."""

from __future__ import annotations

import pytest

from protein_model.structures import Structure, read_structure
from tests.data.structure_files import EXAMPLES


@pytest.fixture(scope="session")
def example_structures() -> list[Structure]:
    """All embedded examples."""
    return [read_structure(path) for path in EXAMPLES]
