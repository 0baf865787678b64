"""Names of the files in a checkpoint folder; those below `state/` are what `Accelerator.save_state` calls them."""

from __future__ import annotations

CONFIG_FILE = "config.json"
SETTINGS_FILE = "settings.json"
WEIGHTS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.bin"
SCALER_FILE = "scaler.pt"


def registered_file(index: int) -> str:
    """File of the registered object number `index`, counted from 0."""
    return f"custom_checkpoint_{index}.pkl"
