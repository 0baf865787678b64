"""A decoder that remembers: from call to call only what new tokens have changed is computed again.

It is for denoisers of one layer that do not look at the noise level, as models with the absorbing kernel have by
default. There a message depends on the backbone and on the tokens at its two ends alone. Sampling masks off residue
after residue: whatever the number of steps, the messages to all residues are computed once, and each of them once more
when its sender gets a type. Other denoisers change everywhere with each token, and are left to `decoding`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decoder import SequenceDenoiser
from .decoding import ROWS, SequenceDecoder, in_whole_blocks
from .encoder import EncodedBackbone


def sampling_decoder(denoiser: SequenceDenoiser, encoded: EncodedBackbone) -> SequenceDecoder:
    """The decoder that is fastest where tokens change little from call to call."""
    remembers = len(denoiser.layers) == 1 and denoiser.embed_noise is None
    return (IncrementalDecoder if remembers else SequenceDecoder)(denoiser, encoded)


class IncrementalDecoder(SequenceDecoder):
    """As `SequenceDecoder`, for one layer without noise level.

    What it remembers of a pair depends on the earlier calls for the same pair only, not on the other pairs.
    """

    def __init__(self, denoiser: SequenceDenoiser, encoded: EncodedBackbone):
        super().__init__(denoiser, encoded)
        self._seen: Tensor | None = None

    def begin(self) -> None:
        """Forget the sequences so far, so that the next ones do not depend on them."""
        self._seen = None

    def logits(self, tokens: Tensor, noise_level: Tensor, pairs: Tensor | None = None) -> Tensor:
        """As `SequenceDecoder.logits`; the noise level is not looked at."""
        total, sequences = tokens.numel(), tokens.shape[1]
        if pairs is None:
            pairs = torch.arange(total, device=tokens.device)
        if self._seen is None or self._seen.shape != tokens.shape:
            self._forget(tokens)
        assert self._seen is not None
        tokens, changed = tokens.flatten(), (tokens != self._seen).flatten()
        layer = self._layers[0]
        changed_pairs = changed.nonzero()[:, 0]
        as_neighbour = self._as_neighbours(layer, self._embedded(tokens, changed_pairs, sequences))

        # Messages to compute again, (P, K), at pairs whose sum is known.
        moved = changed[self._neighbour_pairs(pairs, sequences)] & self._encoded.present[pairs // sequences]
        count = moved.sum(1)
        known = self._known[pairs] & ~changed[pairs]
        # A message that has changed is computed twice, as it was and as it is.
        correct = known & (count > 0) & (2 * count <= moved.shape[1])
        anew = ~known | (2 * count > moved.shape[1])
        if bool(correct.any()):
            place = changed.cumsum(0) - 1
            self._correct(pairs[correct], moved[correct], as_neighbour, place, sequences)
        self._as_neighbour[changed_pairs] = as_neighbour
        self._seen.view(-1)[changed_pairs] = tokens[changed_pairs]
        if bool(anew.any()):
            self._compute(tokens, pairs[anew], sequences)
        stale = pairs[correct | anew]
        if len(stale):
            states = self._updated(layer, self._embedded(tokens, stale, sequences), self._sums[stale])
            self._logits[stale] = self._to_logits(states)
        self._known.zero_()
        self._known[pairs] = True
        return self._logits[pairs]

    def _forget(self, tokens: Tensor) -> None:
        zeros, total = self._encoded.residues.new_zeros, tokens.numel()
        self._seen = torch.full_like(tokens, -1)
        # Of the pairs that logits were wanted of in the last call, these hold.
        self._known = torch.zeros(total, dtype=torch.bool, device=tokens.device)
        self._as_neighbour, self._as_receiver = zeros(total, self._hidden), zeros(total, self._hidden)
        self._sums = zeros(total, self._hidden)
        self._logits = zeros(total, self._denoiser.to_logits.out_features).float()

    def _compute(self, tokens: Tensor, pairs: Tensor, sequences: int) -> None:
        """Sums of all messages to some pairs."""
        layer = self._layers[0]
        self._as_receiver[pairs] = self._as_receivers(layer, self._embedded(tokens, pairs, sequences))
        # As long as little is decoded, many sequences look alike around a residue: one of them is enough.
        model = pairs
        if sequences > 1:
            first = pairs - pairs % sequences
            around = tokens[self._neighbour_pairs(pairs, sequences)] == tokens[self._neighbour_pairs(first, sequences)]
            same = (around | ~self._encoded.present[pairs // sequences]).all(1) & (tokens[pairs] == tokens[first])
            model = torch.where(same, first, pairs)
        needed, place = model.unique(return_inverse=True)
        receivers = self._as_receivers(layer, self._embedded(tokens, needed, sequences))
        sums = self._message_sums(layer, self._edges[0], self._as_neighbour, receivers, needed, sequences)
        self._sums[pairs] = sums[place]

    def _correct(self, pairs: Tensor, moved: Tensor, as_neighbour: Tensor, place: Tensor, sequences: int) -> None:
        """Bring sums up to date with messages that have changed.

        Parameters
        ----------
        moved : (P, K) bool, which
        as_neighbour, place : shares of the changed pairs as they are now, and the row of each pair in them
        """
        width, layer = moved.shape[1], self._layers[0]
        edges, weights = self._edges[0].view(-1, self._hidden), self._weights.view(-1)
        for start in range(0, len(pairs), self._block):
            rows, slots = moved[start : start + self._block].nonzero().T
            count = len(rows)
            receiver = pairs[start + rows]
            edge = receiver // sequences * width + slots
            sender = self._encoded.neighbours.view(-1)[edge] * sequences + receiver % sequences
            at = self._filled(in_whole_blocks(torch.arange(count, device=pairs.device), ROWS).view(-1, ROWS))
            base = edges[edge[at]] + self._as_receiver[receiver[at]]
            new = self._messages(layer, base + as_neighbour[place[sender[at]]])
            new -= self._messages(layer, base + self._as_neighbour[sender[at]])
            change = new.flatten(0, 1)[:count] * weights[edge, None]
            _add_in_order(self._sums, receiver, change)


def _add_in_order(sums: Tensor, receiver: Tensor, change: Tensor) -> None:
    """Add each row of `change` (R, H) to the row `receiver` (R,), ascending, of `sums`, one after the other."""
    if sums.device.type == "cpu":
        sums.index_add_(0, receiver, change)
        return
    # On a GPU `index_add_` adds in an order that changes from run to run.
    which, counts = receiver.unique_consecutive(return_counts=True)
    sums[which] += torch.segment_reduce(change, "sum", lengths=counts, axis=0, unsafe=True)
