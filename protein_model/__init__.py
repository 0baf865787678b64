"""Structure-conditioned protein sequence design: training, resume and design.

The names below are imported when they are first used, so that `import protein_model` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.constraints import Constraints
    from .inference.design import DesignResult, design, load_model
    from .inference.scoring import ScoreResult, score
    from .model.modeling import ProteinModel
    from .structures import Structure, read_structure, write_structure

__version__ = "0.1.0"

_HOMES = {
    "Constraints": ".inference.constraints",
    "DesignResult": ".inference.design",
    "ProteinModel": ".model.modeling",
    "ScoreResult": ".inference.scoring",
    "Structure": ".structures",
    "design": ".inference.design",
    "load_model": ".inference.design",
    "read_structure": ".structures",
    "score": ".inference.scoring",
    "write_structure": ".structures",
}

__all__ = [
    "Constraints",
    "DesignResult",
    "ProteinModel",
    "ScoreResult",
    "Structure",
    "design",
    "load_model",
    "read_structure",
    "score",
    "write_structure",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
