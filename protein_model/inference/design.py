"""Structure files in, FASTA files with designed sequences out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from ..errors import UserError
from ..model.modeling import ProteinModel
from ..structures import Structure, sequence_of, write_fasta
from .metrics import recovery
from .sampling import DEFAULT_STEPS, DEFAULT_TEMPERATURE, Designs, sample_sequences


class ModelNotFound(UserError, FileNotFoundError):
    """A folder holds no trained model."""


def load_model(folder: str | Path) -> ProteinModel:
    """A trained model, ready to design, on a GPU where there is one.

    Raises
    ------
    ModelNotFound : the folder holds no model; the message says what is expected
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"--model {folder}: has no config.json; give a folder that training saved, such as checkpoints/best_model"
        )
    disable_progress_bar()
    model: ProteinModel = ProteinModel.from_pretrained(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]  # its wrapper hides the signature
    return model.eval()


def chain_sequences(residue_type: np.ndarray, structure: Structure) -> str:
    """One-letter sequence, the chains separated by a slash."""
    return "/".join(
        sequence_of(residue_type[structure.chain_index == chain]) for chain in range(len(structure.chain_ids))
    )


def fasta_records(
    structure: Structure, designs: Designs, temperature: float, num_steps: int, seed: int, model_name: str
) -> list[tuple[str, str]]:
    """Headers and sequences: the native sequence first, then the designs.

    A header is the name and then `key=value` fields, separated by a comma and a blank. `score` is in nats per residue,
    lower is better; `recovery` is the share of residues equal to the native ones.
    """
    chains = "".join(f"{chain}:" for chain in structure.chain_ids).rstrip(":")
    records = [(f"{structure.name}, native, chains={chains}", chain_sequences(structure.residue_type, structure))]
    recovered = recovery(designs.residue_type, structure)
    for sample, (residue_type, score) in enumerate(zip(designs.residue_type, designs.score, strict=True), start=1):
        header = (
            f"{structure.name}, sample={sample}, score={score:.4f}, recovery={recovered[sample - 1]:.4f}, "
            f"temperature={temperature:g}, steps={num_steps}, seed={seed}, model={model_name}, chains={chains}"
        )
        records.append((header, chain_sequences(residue_type, structure)))
    return records


def design_file(
    model: ProteinModel,
    structure: Structure,
    out_dir: Path,
    num_sequences: int,
    temperature: float = DEFAULT_TEMPERATURE,
    num_steps: int = DEFAULT_STEPS,
    seed: int = 0,
    model_name: str = "",
) -> tuple[Path, Designs]:
    """Design sequences for one structure and write them as `<out_dir>/<name>.fasta`.

    Returns
    -------
    the file, and what is in it
    """
    [designs] = sample_sequences(model, [structure], num_sequences, temperature, num_steps, seed)
    path = out_dir / f"{structure.name}.fasta"
    write_fasta(path, fasta_records(structure, designs, temperature, num_steps, seed, model_name))
    return path, designs


def example_designs(model: ProteinModel, structures: Sequence[Structure]) -> str:
    """One designed sequence under the native one for each structure, with its recovery, as text."""
    lines = []
    for structure, designs in zip(structures, sample_sequences(model, structures, 1), strict=True):
        share = recovery(designs.residue_type, structure)[0]
        lines += [
            f"{structure.name}: recovery {100 * share:.1f} % at temperature {DEFAULT_TEMPERATURE:g}",
            f"  native   {chain_sequences(structure.residue_type, structure)}",
            f"  designed {chain_sequences(designs.residue_type[0], structure)}",
        ]
    return "\n".join(lines)
