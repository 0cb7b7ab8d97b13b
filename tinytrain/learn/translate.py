"""Translator: greedy and beam search over planned inference; it trains nothing.

A network's two halves, the encoder and one step of the decoder, are planned for a few lengths, all
over one arena and one copy of the parameters. A step runs the decoder over the whole prefix: no
state is kept between steps, so that any network with the same two methods can be searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytrain.bound import Bound
from tinytrain.data.pairs import by_length, pad
from tinytrain.data.vocabulary import BEGIN, END, PAD, Vocabulary
from tinytrain.errors import InputError
from tinytrain.freeze import freeze
from tinytrain.lifetime import Layout
from tinytrain.lower import lower
from tinytrain.nn.module import Module
from tinytrain.plan import make_plan
from tinytrain.run import Executor, choose_backend, new_arena
from tinytrain.spec import Spec
from tinytrain.tensor import Tensor
from tinytrain.trainer import Trainer

STEP = 8  # lengths are planned in multiples of this many pieces
NEVER = -np.inf


class _Half(Module):
    """One method of a network as a network: its parameters keep their names."""

    def __init__(self, net: Module, forward: Callable[..., Tensor]):
        self.net, self.forward = net, forward  # type: ignore[method-assign]

    def children(self):
        return self.net.children()


class Translator:
    """Texts in, texts out.

    net         has `encode(source, source_at, source_in)` and `decode_last(target, target_at,
                target_in, memory, source_in, last)`, the logits (N, pieces) at the place that
                `last` (N, T), one-hot, marks; `models.text` has two such networks.
    vocabulary  of both languages.
    trainer     whose arena and weights are used; without one the weights are copied once.
    beam        translations that are held at a time; 1 is greedy.
    batch       rows that run at a time: batch // beam sentences.
    longest     pieces of a sentence at most, its end included, on either side.
    alpha       of the length penalty ((5 + pieces) / 6) ** alpha (Wu et al. 2016).
    """

    def __init__(
        self,
        net: Any,
        vocabulary: Vocabulary,
        trainer: Trainer | None = None,
        beam: int = 1,
        batch: int = 64,
        longest: int = 48,
        alpha: float = 0.6,
        backend: str = "auto",
    ):
        if not 1 <= beam <= batch:
            raise InputError(f"Translator: beam is {beam}, batch {batch}; wants 1 <= beam <= batch")
        self.net, self.vocabulary = net, vocabulary
        self.beam, self.count, self.alpha = beam, batch // beam, alpha
        self.longest = -(-longest // STEP) * STEP
        self.backend = choose_backend(backend) if trainer is None else trainer.backend
        self._bound: dict[tuple[str, int, int], Bound] = {}
        self._width = 0  # features of what the encoder gives
        self._layout: Layout | None = None if trainer is None else trainer.plan.layout
        self._arena = np.empty(0, np.uint8) if trainer is None else trainer.arena
        self._make_arena(trainer is None)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The translation of each text. InputError for one that is empty or too long."""
        if isinstance(texts, str):
            raise InputError("Translator: wants a list of texts; for one, [text]")
        numbers = [[*self.vocabulary.encode(t), END] for t in texts]
        for text, pieces in zip(texts, numbers, strict=True):
            if not 1 < len(pieces) <= self.longest:
                raise InputError(
                    f"Translator: {text!r} has {len(pieces) - 1} pieces, wants 1 to "
                    f"{self.longest - 1}"
                )
        found = [""] * len(texts)
        for pick in by_length([len(n) for n in numbers], self.count):
            part = [numbers[k] for k in pick]
            part += part[:1] * (self.count - len(part))  # plans are for full batches
            for k, pieces in zip(pick, self._search(part), strict=False):
                found[k] = self.vocabulary.decode(pieces)
        return found

    # ------------------------------------------------------------------ planning

    def _make_arena(self, alone: bool) -> None:
        """Plan the longest of both halves; without a trainer, lay out and fill an arena."""
        parts = [("encode", self.longest, 0), ("decode", self.longest, self.longest)]
        tape = self._plan(*parts[0])[0].tape
        self._width = tape.specs[tape.outputs[0]].shape[-1]
        if alone:
            whole = self._plan("whole", self.longest, self.longest)[1]
            self._layout = whole.layout
            sizes = [whole.arena_bytes, *(self._plan(*p)[1].arena_bytes for p in parts)]
            self._arena = new_arena(max(sizes), whole.base)
            for p in parts:
                bound = self._for(*p)
                for v, leaf in bound.plan.program.leaves.items():
                    if (leaf.kind, leaf.name) in self._layout.offsets:
                        bound.executor.view(v)[...] = bound.frozen.leaves[v].data
        for p in parts:
            self._for(*p)

    def _plan(self, what: str, s: int, t: int):
        """The recorded half and its plan for sources of s pieces and targets of t."""
        net, source, target = self.net, [Spec((s,), "int32")] * 3, [Spec((t,), "int32")] * 3

        def whole(*x: Any) -> Tensor:
            memory = net.encode(*x[:3])
            return net.decode_last(*x[3:6], memory, x[2], x[6])

        if what == "encode":
            half, samples, n = _Half(net, net.encode), source, self.count
        elif what == "whole":
            half, samples, n = _Half(net, whole), [*source, *target, Spec((t,))], self.count
        else:
            samples = [*target, Spec((s, self._width)), source[0], Spec((t,))]
            half, n = _Half(net, net.decode_last), self.count * self.beam
        frozen = freeze(half, samples, n, None, False)
        return frozen, make_plan(lower(frozen.tape), n, layout=self._layout)

    def _for(self, what: str, s: int, t: int) -> Bound:
        if (what, s, t) not in self._bound:
            frozen, plan = self._plan(what, s, t)
            if plan.arena_bytes > len(self._arena):
                raise InputError(
                    f"Translator: {self.count} sentences of {s} pieces take {plan.arena_bytes:,} "
                    f"bytes, the arena has {len(self._arena):,}; use a smaller batch"
                )
            executor = Executor(plan, self.backend, self._arena)
            self._bound[what, s, t] = Bound(frozen, plan, executor, plan.layout.end)
        return self._bound[what, s, t]

    def _run(self, what: str, s: int, t: int, *inputs: np.ndarray) -> np.ndarray:
        bound = self._for(what, s, t)
        bound.check(inputs, ())
        bound.fill(inputs, ())
        bound.run()
        return bound.outputs[0]

    # ------------------------------------------------------------------ searching

    def _search(self, sources: list[list[int]]) -> list[list[int]]:
        """The best beam of each of `count` sources."""
        n, k = self.count, self.beam
        s = _rounded(max(map(len, sources)))
        rows = pad([(x, [END]) for x in sources], (s, STEP))
        memory = self._run("encode", s, 0, *rows.x[:3]).copy()
        memory, source_in = (np.repeat(a, k, axis=0) for a in (memory, rows.source_in))
        found = np.full((n, k, self.longest), PAD, np.int32)  # what the decoder reads
        found[:, :, 0] = BEGIN
        scores = np.full((n, k), NEVER)
        scores[:, 0] = 0.0  # all beams begin alike: one of them does
        ended = np.zeros((n, k), bool)
        lengths = np.zeros((n, k))
        for at in range(self.longest - 1):
            logits = self._last(found.reshape(n * k, -1), at, s, memory, source_in)
            found, scores, ended, lengths = _extend(logits, at, found, scores, ended, lengths)
            if ended.all():
                break
        final = scores / ((5 + lengths) / 6) ** self.alpha
        return [row[1:].tolist() for row in found[np.arange(n), final.argmax(axis=1)]]

    def _last(self, found, at: int, s: int, memory, source_in) -> np.ndarray:
        """The logits (N, pieces) behind place `at` of every row."""
        t = _rounded(at + 1)
        places = np.broadcast_to(np.arange(t, dtype=np.int32), (len(found), t))
        together = np.zeros_like(places)
        last = np.zeros((len(found), t), np.float32)
        last[:, at] = 1
        return self._run("decode", s, t, found[:, :t], places, together, memory, source_in, last)


def _rounded(length: int) -> int:
    return -(-length // STEP) * STEP


def _extend(logits, at: int, found, scores, ended, lengths):
    """Each row's best beams with one more piece: (found, scores, ended, lengths) anew."""
    n, k, _ = found.shape
    logits = logits.reshape(n, k, -1).astype(np.float64)
    logits[:, :, [PAD, BEGIN]] = NEVER
    logits -= logits.max(axis=2, keepdims=True)
    more = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    more[ended] = NEVER
    more[ended, PAD] = 0.0  # what has ended stays as it is
    total = (scores[:, :, None] + more).reshape(n, -1)
    best = np.argsort(-total, axis=1, kind="stable")[:, :k]
    rows = np.arange(n)[:, None]
    beam, piece = np.divmod(best, more.shape[2])
    found, ended, lengths = found[rows, beam], ended[rows, beam], lengths[rows, beam]
    found[:, :, at + 1] = piece
    lengths += ~ended
    return found, np.take_along_axis(total, best, axis=1), ended | (piece == END), lengths
