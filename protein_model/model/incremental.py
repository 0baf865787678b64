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
from .decoding import SequenceDecoder
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
        # Messages, numbered n * K + k, by sender: those of residue n are from place `_sent_from[n]` on.
        sent = encoded.present.flatten().nonzero()[:, 0]
        senders = encoded.neighbours.flatten()[sent]
        self._sent = sent[senders.argsort(stable=True)]
        self._sent_count = torch.bincount(senders, minlength=len(encoded.neighbours))
        self._sent_from = self._sent_count.cumsum(0) - self._sent_count

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

        known = self._known[pairs] & ~changed[pairs]
        stale = ~known
        anew = pairs[stale]
        if len(anew) < len(pairs):
            holding = torch.zeros_like(self._known)
            holding[pairs] = known
            row, message, receiver = self._messages_of(changed_pairs, sequences, holding)
            count = torch.bincount(receiver, minlength=total)
            # A message that has changed is computed twice, as it was and as it is.
            many = 2 * count > self._encoded.neighbours.shape[1]
            anew = pairs[stale | many[pairs]]
            stale |= count[pairs] > 0
            few = ~many[receiver]
            row, message, receiver = row[few], message[few], receiver[few]
            self._correct(message, receiver, as_neighbour[row], self._as_neighbour[changed_pairs[row]], sequences)
        self._as_neighbour[changed_pairs] = as_neighbour
        self._seen.view(-1)[changed_pairs] = tokens[changed_pairs]
        if len(anew):
            self._compute(tokens, anew, sequences)
        stale_pairs = pairs[stale]
        if len(stale_pairs):
            states = self._embedded(tokens, stale_pairs, sequences)
            self._logits[stale_pairs] = self._to_logits(self._updated(layer, states, self._sums[stale_pairs]))
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

    def _messages_of(self, senders: Tensor, sequences: int, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What some pairs (C,), ascending, send to `wanted` (N * S,) pairs.

        Returns
        -------
        row : (M,) of `senders`
        message : (M,) number of the message, n * K + k
        receiver : (M,) pair, ascending; of equal ones, those of the first sender first
        """
        residue, sequence = senders // sequences, senders % sequences
        count = self._sent_count[residue]
        row = torch.arange(len(senders), device=senders.device).repeat_interleave(count)
        place = (
            torch.arange(len(row), device=senders.device) + (self._sent_from[residue] + count - count.cumsum(0))[row]
        )
        message = self._sent[place]
        receiver = message // self._encoded.neighbours.shape[1] * sequences + sequence[row]
        kept = wanted[receiver].nonzero()[:, 0]
        order = kept[receiver[kept].argsort(stable=True)]
        return row[order], message[order], receiver[order]

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

    def _correct(self, message: Tensor, receiver: Tensor, new: Tensor, old: Tensor, sequences: int) -> None:
        """Bring sums up to date with messages that have changed.

        Parameters
        ----------
        message, receiver : (M,) as `_messages_of` gives them
        new, old : (M, H), shares of their senders
        """
        edges, weights = self._edges[0].view(-1, self._hidden), self._weights.view(-1)
        size = self._block * self._weights.shape[1]
        for start in range(0, len(message), size):
            block = slice(start, start + size)
            base = edges[message[block]] + self._as_receiver[receiver[block]]
            change = self._messages(base + new[block]) - self._messages(base + old[block])
            _add_in_order(self._sums, receiver[block], change * weights[message[block], None])


def _add_in_order(sums: Tensor, receiver: Tensor, change: Tensor) -> None:
    """Add each row of `change` (R, H) to the row `receiver` (R,), ascending, of `sums`, one after the other."""
    if sums.device.type == "cpu":
        sums.index_add_(0, receiver, change)
        return
    # On a GPU `index_add_` adds in an order that changes from run to run.
    which, counts = receiver.unique_consecutive(return_counts=True)
    sums[which] += torch.segment_reduce(change, "sum", lengths=counts, axis=0, unsafe=True)
