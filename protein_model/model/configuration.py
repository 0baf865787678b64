"""What a trained model is: every number that its architecture and its diffusion process need, nothing of training."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

RESIDUE_LETTERS = "ACDEFGHIKLMNPQRSTVWYX"  # the order of tokens; X is both "unknown" and "masked"
DIFFUSION_KERNELS = ("absorbing", "uniform", "substitution")


class ProteinModelConfig(PreTrainedConfig):
    """Architecture and diffusion settings of a `ProteinModel`.

    Parameters
    ----------
    hidden_dim : width of residue and edge embeddings
    num_encoder_layers : message-passing layers on the backbone graph, with edge updates
    num_decoder_layers : message-passing layers of the sequence denoiser, which runs at each step of sampling; with one,
        and the absorbing kernel, most of it can be remembered from step to step
    num_neighbors : residues nearest by CA distance that send messages to a residue, itself included
    dropout : dropout rate of every layer, 0 to 1
    num_radial_bases : Gaussian bases per inter-atomic distance, from 2 to 22 angstrom
    max_relative_position : sequence offsets beyond this many residues look alike
    use_discrete_diffusion : without it the decoder predicts all residues in one pass from no sequence at all
    num_diffusion_steps : T, the number of noise levels in training; sampling may use any number of steps
    diffusion_kernel : "absorbing", "uniform" or "substitution"
    substitution_matrix : (20, 20) row-stochastic matrix, for the substitution kernel only

    Raises
    ------
    ValueError : a setting is out of its range; the message names it
    """

    model_type = "protein_model"

    def __init__(
        self,
        hidden_dim: int = 128,
        num_encoder_layers: int = 5,
        num_decoder_layers: int = 1,
        num_neighbors: int = 48,
        dropout: float = 0.1,
        num_radial_bases: int = 16,
        max_relative_position: int = 32,
        use_discrete_diffusion: bool = False,
        num_diffusion_steps: int = 100,
        diffusion_kernel: str = "absorbing",
        substitution_matrix: list[list[float]] | None = None,
        **kwargs: Any,
    ):
        positive = {
            "hidden_dim": hidden_dim,
            "num_encoder_layers": num_encoder_layers,
            "num_decoder_layers": num_decoder_layers,
            "num_neighbors": num_neighbors,
            "num_radial_bases": num_radial_bases,
            "max_relative_position": max_relative_position,
            "num_diffusion_steps": num_diffusion_steps,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if num_radial_bases < 2:
            raise ValueError(f"num_radial_bases must be at least 2, but is {num_radial_bases}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, but is {dropout}")
        if diffusion_kernel not in DIFFUSION_KERNELS:
            raise ValueError(
                f"diffusion_kernel must be one of {', '.join(DIFFUSION_KERNELS)}, but is {diffusion_kernel!r}"
            )
        if use_discrete_diffusion and diffusion_kernel == "substitution" and substitution_matrix is None:
            raise ValueError("diffusion_kernel 'substitution' needs a substitution_matrix")
        self.hidden_dim = hidden_dim
        self.num_encoder_layers = num_encoder_layers
        self.num_decoder_layers = num_decoder_layers
        self.num_neighbors = num_neighbors
        self.dropout = dropout
        self.num_radial_bases = num_radial_bases
        self.max_relative_position = max_relative_position
        self.use_discrete_diffusion = use_discrete_diffusion
        self.num_diffusion_steps = num_diffusion_steps
        self.diffusion_kernel = diffusion_kernel
        self.substitution_matrix = substitution_matrix
        self.residue_letters = RESIDUE_LETTERS
        kwargs.pop("residue_letters", None)
        super().__init__(**kwargs)
