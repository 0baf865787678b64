"""The model as Hugging Face Transformers knows it: encoder, decoder, loss, loading and saving."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration import ProteinModelConfig
from .decoder import NUM_RESIDUE_TYPES, SequenceDenoiser
from .diffusion import DiscreteDiffusion
from .encoder import BackboneEncoder, EncodedBackbone
from .kernels import build_kernel


@dataclass
class ProteinModelOutput(ModelOutput):
    """Output of `ProteinModel.forward`.

    Attributes
    ----------
    loss : mean cross-entropy over the scored residues in nats, None without `labels`
    logits : (N, 20) of the clean residue types
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class SequenceLoss:
    """Sums over the scored residues of a batch; divide by `count` for means.

    Attributes
    ----------
    objective : cross-entropy with label smoothing, what training minimises
    nll : negative log-likelihood in nats, never smoothed
    correct : residues whose most probable type is the native one
    count : scored residues
    """

    objective: Tensor
    nll: Tensor
    correct: Tensor
    count: Tensor


def sequence_loss(logits: Tensor, labels: Tensor, scored: Tensor, label_smoothing: float = 0.0) -> SequenceLoss:
    """Loss of a prediction, summed over scored residues.

    Parameters
    ----------
    logits : (N, 20)
    labels : (N,) int64, 20 where unknown; such residues must not be scored
    scored : (N,) bool
    label_smoothing : share of the probability that is spread evenly over all types
    """
    log_probability = functional.log_softmax(logits.float(), dim=-1)
    nll = -log_probability.gather(-1, labels.clamp(max=NUM_RESIDUE_TYPES - 1)[:, None])[:, 0]
    weight = scored.to(nll.dtype)
    objective = nll
    if label_smoothing:
        objective = (1 - label_smoothing) * nll - label_smoothing * log_probability.mean(-1)
    correct = (logits.argmax(-1) == labels).to(nll.dtype)
    return SequenceLoss((objective * weight).sum(), (nll * weight).sum(), (correct * weight).sum(), weight.sum())


class ProteinModel(PreTrainedModel):
    """Structure-conditioned denoiser of residue sequences.

    `encode` reads a backbone once; `decode` turns a corrupted sequence into logits of the clean one; `diffusion` knows
    how sequences are corrupted and how to go back.
    """

    config_class = ProteinModelConfig
    config: ProteinModelConfig
    base_model_prefix = "protein_model"
    # Where training is sharded, the weights of one of these at a time are put together.
    _no_split_modules = ["EncoderLayer", "ResidueUpdate"]  # noqa: RUF012
    main_input_name = "backbone"

    def __init__(self, config: ProteinModelConfig):
        super().__init__(config)
        self.encoder = BackboneEncoder(config)
        self.decoder = SequenceDenoiser(config)
        self.post_init()

    # Built on first use: `from_pretrained` runs `__init__` with tensors that have no storage.
    @cached_property
    def diffusion(self) -> DiscreteDiffusion:
        """How sequences are corrupted, and the way back."""
        if self.config.use_discrete_diffusion:
            kernel = build_kernel(self.config.diffusion_kernel, self.config.substitution_matrix)
            return DiscreteDiffusion(kernel, self.config.num_diffusion_steps)
        # One pass from no sequence at all is diffusion with a single, fully masking step.
        return DiscreteDiffusion(build_kernel("absorbing", None), 1)

    def get_input_embeddings(self) -> nn.Module:
        """Embedding of the residue tokens; Transformers and Accelerate ask every model for it."""
        return self.decoder.embed_tokens

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            # Training starts from even probabilities. What is initialised once is not touched again, so that this has
            # to be told apart here and not by the decoder as a whole.
            if module is self.decoder.to_logits:
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def encode(
        self, backbone: Tensor, backbone_mask: Tensor, structure_index: Tensor, chain_index: Tensor, position: Tensor
    ) -> EncodedBackbone:
        """Embed backbones; arguments as in `BackboneEncoder.forward`."""
        return self.encoder(backbone, backbone_mask, structure_index, chain_index, position)

    def decode(self, encoded: EncodedBackbone, tokens: Tensor, noise_level: Tensor) -> Tensor:
        """Logits (..., N, 20) of the clean sequence; arguments as in `SequenceDenoiser.forward`."""
        return self.decoder(encoded, tokens, noise_level)

    def forward(
        self,
        backbone: Tensor,
        backbone_mask: Tensor,
        structure_index: Tensor,
        chain_index: Tensor,
        position: Tensor,
        tokens: Tensor,
        noise_level: Tensor,
        labels: Tensor | None = None,
        scored: Tensor | None = None,
    ) -> ProteinModelOutput:
        """Encode a flat batch of backbones and denoise one sequence on each.

        Parameters
        ----------
        backbone, backbone_mask, structure_index, chain_index, position : as in `BackboneEncoder.forward`
        tokens : (N,) int64, corrupted sequence, 0 to 20
        noise_level : (B,) 0 to 1, one for each structure
        labels : (N,) int64, clean sequence, for the loss
        scored : (N,) bool, residues that the loss counts; by default those with a complete backbone and a known label
        """
        encoded = self.encode(backbone, backbone_mask, structure_index, chain_index, position)
        logits = self.decode(encoded, tokens, noise_level)
        loss = None
        if labels is not None:
            if scored is None:
                scored = backbone_mask & (labels < NUM_RESIDUE_TYPES)
            sums = sequence_loss(logits, labels, scored)
            loss = sums.nll / sums.count.clamp(min=1)
        return ProteinModelOutput(loss=loss, logits=logits)


def parameter_count(model: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


__all__ = ["ProteinModel", "ProteinModelOutput", "SequenceLoss", "parameter_count", "sequence_loss"]
