"""Translation: a transformer, and a GRU with attention, over rows of several sentence pairs.

Rows are what `tinytrain.data.pairs` packs: for each side the pieces' numbers, each one's place in
its sentence, and which sentence of the row it belongs to. Attention stays within a sentence, so
that a row full of short pairs costs no padding.
"""

import math
from collections.abc import Sequence

import numpy as np

from tinytrain import Spec, Tensor, nn, ops
from tinytrain.nn.arguments import check_sizes

WIDTH = (20, 24)  # places of a row, for source and target
HIDDEN = -1e9  # added to the score of what must not be seen


class Block(nn.Module):
    """Pre-norm (Xiong et al. 2020): attention, in a decoder attention over the source, then two
    dense layers; each is added to its input."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, decodes: bool):
        self.norm, self.attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, heads)
        if decodes:
            self.across_norm = nn.LayerNorm(dim)
            self.across = nn.MultiheadAttention(dim, heads)
        self.dense_norm = nn.LayerNorm(dim)
        self.dense = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory=None, memory_mask=None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x), mask=mask))
        if memory is not None:
            x = x + self.dropout(self.across(self.across_norm(x), memory, memory_mask))
        return x + self.dropout(self.dense(self.dense_norm(x)))


class Translation(nn.Module):
    """What both networks share: one table of pieces for both languages and the output.

    pieces     the vocabulary's, which `vocabulary` then is, or how many, its special ones included.
    width      places of a row, for source and target.
    sentences  of a row at most, padding counted as one.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        pieces: int | Sequence[str],
        dim: int,
        dropout: float,
        width: tuple[int, int],
        sentences: int,
    ):
        self.vocabulary = None
        if not isinstance(pieces, int):
            from tinytrain.data.vocabulary import Vocabulary  # only some ask for it

            self.vocabulary = Vocabulary(pieces)
            pieces = len(self.vocabulary)
        check_sizes(type(self).__name__, pieces=pieces, dim=dim, sentences=sentences)
        self.table = nn.Parameter((pieces, dim), nn.init.normal(dim**-0.5))
        self.dropout = nn.Dropout(dropout)
        self.dim = dim
        self.one_hot = Tensor(np.eye(sentences, dtype=np.float32))
        self.input_shape = [Spec((w,), "int32") for w in width for _ in range(3)]
        self.label_spec = [Spec((width[1],), "int32"), Spec((width[1],))]

    def encode(self, source, source_at, source_in) -> Tensor:
        """(N, S) thrice -> what the decoder attends to, (N, S, dim)."""
        raise NotImplementedError

    def states(self, target, target_at, target_in, memory, source_in) -> Tensor:
        """(N, T) thrice and the encoder's -> (N, T, dim), of which the logits are made."""
        raise NotImplementedError

    def forward(self, source, source_at, source_in, target, target_at, target_in) -> Tensor:
        memory = self.encode(source, source_at, source_in)
        return self.states(target, target_at, target_in, memory, source_in) @ self.table.T

    def decode_last(self, target, target_at, target_in, memory, source_in, last) -> Tensor:
        """The logits (N, pieces) at the place that `last` (N, T), one-hot, marks."""
        x = self.states(target, target_at, target_in, memory, source_in)
        return (last.reshape(x.shape[0], 1, -1) @ x).reshape(x.shape[0], -1) @ self.table.T

    def looked_up(self, numbers) -> Tensor:
        """(N, T) -> (N, T, dim), of variance about 1."""
        return ops.embedding(self.table, numbers) * math.sqrt(self.dim)

    def together(self, a, b) -> Tensor:
        """(N, 1, T, S): 0 where both belong to one sentence, elsewhere hidden."""
        a, b = ops.embedding(self.one_hot, a), ops.embedding(self.one_hot, b)
        same = a @ b.transpose(0, 2, 1)
        return ((same - 1.0) * -HIDDEN).reshape(a.shape[0], 1, *same.shape[1:])


class Transformer(Translation):
    """Vaswani et al. 2017, small and pre-norm, with fixed sines for places; 1.31 M parameters.

    `places` bounds the length of a sentence."""

    def __init__(
        self,
        pieces: int | Sequence[str] = 3000,
        dim: int = 128,
        heads: int = 4,
        hidden: int = 512,
        layers: int = 2,
        dropout: float = 0.1,
        width: tuple[int, int] = WIDTH,
        sentences: int = 16,
        places: int = 64,
    ):
        check_sizes("Transformer", layers=layers, hidden=hidden, places=places)
        super().__init__(pieces, dim, dropout, width, sentences)
        self.encoder = [Block(dim, heads, hidden, dropout, False) for _ in range(layers)]
        self.encoder_norm = nn.LayerNorm(dim)
        self.decoder = [Block(dim, heads, hidden, dropout, True) for _ in range(layers)]
        self.decoder_norm = nn.LayerNorm(dim)
        self.places = Tensor(sines(places, dim))

    def encode(self, source, source_at, source_in) -> Tensor:
        mask = self.together(source_in, source_in)
        x = self._placed(source, source_at)
        for block in self.encoder:
            x = block(x, mask)
        return self.encoder_norm(x)

    def states(self, target, target_at, target_in, memory, source_in) -> Tensor:
        later = np.triu(np.full((target.shape[1],) * 2, HIDDEN, np.float32), 1)
        mask = self.together(target_in, target_in) + Tensor(later)
        across = self.together(target_in, source_in)
        x = self._placed(target, target_at)
        for block in self.decoder:
            x = block(x, mask, memory, across)
        return self.decoder_norm(x)

    def _placed(self, numbers, at) -> Tensor:
        return self.dropout(self.looked_up(numbers) + ops.embedding(self.places, at))


class AttentionGRU(Translation):
    """A GRU reads the source, another writes the target, and each of its states attends to the
    source (Luong et al. 2015, global attention); 0.68 M parameters. Where a sentence begins in a
    row, the state is zero again."""

    def __init__(
        self,
        pieces: int | Sequence[str] = 3000,
        dim: int = 128,
        heads: int = 1,
        dropout: float = 0.1,
        width: tuple[int, int] = WIDTH,
        sentences: int = 16,
        places: int = 64,
    ):
        super().__init__(pieces, dim, dropout, width, sentences)
        self.reader, self.writer = nn.GRUCell(dim, dim), nn.GRUCell(dim, dim)
        self.attention = nn.MultiheadAttention(dim, heads)
        self.mixed = nn.Linear(2 * dim, dim)
        self.goes_on = Tensor((np.arange(places) > 0).astype(np.float32).reshape(-1, 1))

    def encode(self, source, source_at, source_in) -> Tensor:
        return self._run(self.reader, source, source_at)

    def states(self, target, target_at, target_in, memory, source_in) -> Tensor:
        h = self._run(self.writer, target, target_at)
        found = self.attention(h, memory, self.together(target_in, source_in))
        return self.dropout(self.mixed(ops.concat([h, found], axis=2)).tanh())

    def _run(self, cell: nn.GRUCell, numbers, at) -> Tensor:
        """Every state of the cell (N, T, dim)."""
        x, goes_on = self.dropout(self.looked_up(numbers)), ops.embedding(self.goes_on, at)
        h, seen = None, []
        for t in range(x.shape[1]):
            h = cell(x[:, t], None if h is None else h * goes_on[:, t])
            seen.append(h.reshape(h.shape[0], 1, -1))
        return ops.concat(seen, axis=1)


def sines(places: int, dim: int) -> np.ndarray:
    """(places, dim): sines and cosines of each place, wavelengths from 2 pi to 10,000 * 2 pi."""
    rates = 10000.0 ** (-np.arange(0, dim, 2) / dim)
    angles = np.arange(places)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
