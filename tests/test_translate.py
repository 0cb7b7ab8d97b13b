"""Translation: rows of several pairs mean what each pair means alone; search finds what it says."""

from __future__ import annotations

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import Trainer, losses, nn, optim
from tinytrain.data.pairs import encode, pack, pad, phrases
from tinytrain.data.vocabulary import BEGIN, END, PAD, Vocabulary
from tinytrain.errors import InputError
from tinytrain.learn.translate import Translator, _extend
from tinytrain.models.text import AttentionGRU, Transformer

VOCABULARY = Vocabulary.learn([side for pair in phrases() for side in pair], size=200)
PAIRS = encode(phrases(), VOCABULARY)
WIDTH = (24, 32)


def small(kind: str, **more) -> nn.Module:
    more = {"dim": 16, "heads": 2, "width": WIDTH, "dropout": 0.0, **more}
    with nn.seeded(1):
        if kind == "gru":
            return AttentionGRU(len(VOCABULARY), **more)
        return Transformer(len(VOCABULARY), hidden=24, layers=1, **more)


both = pytest.mark.parametrize("kind", ["transformer", "gru"])


@both
def test_a_sentence_means_the_same_in_any_row(kind: str) -> None:
    """Its neighbours in a row, and what pads it, are not seen."""
    net = small(kind).eval()
    alone, rows = pad(PAIRS[:9], WIDTH), pack(PAIRS[:9], WIDTH)
    one, several = net(*alone.x).data, net(*rows.x).data
    assert len(rows.source) < 9
    expected = {tuple(y[m > 0]): a[m > 0] for y, a, m in zip(alone.labels, one, alone.mask)}  # noqa: B905
    for k in range(len(rows.source)):
        for s in set(rows.target_in[k][rows.mask[k] > 0]):
            place = rows.target_in[k] == s
            want = expected.pop(tuple(rows.labels[k][place]))
            np.testing.assert_allclose(several[k][place], want, atol=2e-5)
    assert not expected


@both
def test_no_place_sees_a_later_one(kind: str) -> None:
    net, rows = small(kind).eval(), pad(PAIRS[:2], WIDTH)
    before = net(*rows.x).data
    rows.target[:, 5] = 7
    after = net(*rows.x).data
    assert (before[:, :5] == after[:, :5]).all() and (before[:, 5:] != after[:, 5:]).any()


@both
def test_training_planned_and_in_slices(kind: str) -> None:
    """A few updates learn, and slices of a batch add up to the batch."""
    rows, found = pack(PAIRS[:40], WIDTH, seed=0), []
    for microbatch in (4, 2):
        net = small(kind)
        trainer = Trainer(
            net,
            losses.CrossEntropy(0.1),
            optim.AdamW(lr=0.01),
            batch=4,
            microbatch=microbatch,
            label_spec=net.label_spec,
        )
        part = tuple(a[:4] for a in rows.x), tuple(a[:4] for a in rows.y)
        found.append([trainer.step(*part) for _ in range(6)])
    np.testing.assert_allclose(*found, rtol=2e-3)
    assert found[0][-1] < found[0][0] - 0.4


def greedily(net: nn.Module, text: str, longest: int) -> str:
    """One piece at a time from the whole network over the whole prefix, unplanned."""
    source, found = [*VOCABULARY.encode(text), END], []
    while len(found) < longest - 1 and (not found or found[-1] != END):
        row = pad([(source, [*found, END])], (longest, longest))
        logits = net(*row.x).data[0, len(found)].astype(np.float64)
        logits[[PAD, BEGIN]] = -np.inf
        found.append(int(logits.argmax()))
    return VOCABULARY.decode(found)


@pytest.fixture(scope="module", params=["transformer", "gru"])
def trained(request) -> Trainer:
    """A network that knows a little, so that translations end."""
    net = small(request.param, dim=32)
    schedule = optim.CosineLR(0.02, 40)
    trainer = Trainer(net, "cross_entropy", optim.AdamW(schedule), 8, label_spec=net.label_spec)
    rows = pack(PAIRS, WIDTH, seed=0)
    for k in range(40):
        pick = np.arange(k * 8, k * 8 + 8) % len(rows.source)
        trainer.step(tuple(a[pick] for a in rows.x), tuple(a[pick] for a in rows.y))
    return trainer


def test_greedy_is_the_largest_logit_every_time(trained: Trainer) -> None:
    texts = [english for english, _ in phrases()[::67]]
    translate = Translator(trained.net, VOCABULARY, batch=4, longest=16, backend=trained.backend)
    found = translate(texts)
    assert found == [greedily(trained.net.eval(), t, 16) for t in texts]
    assert len(set(found)) > 1


def test_the_trainers_arena_serves_and_is_left_as_it_was(trained: Trainer) -> None:
    before = {k: v.copy() for k, v in trained.state().items()}
    texts = [english for english, _ in phrases()[::40]]
    inside = Translator(trained.net, VOCABULARY, trained, batch=4, longest=16)
    alone = Translator(trained.net, VOCABULARY, batch=4, longest=16, backend=trained.backend)
    assert inside._arena is trained.arena and inside(texts) == alone(texts)
    assert all((before[k] == v).all() for k, v in trained.state().items())


def test_a_wider_beam_finds_what_is_likelier(trained: Trainer) -> None:
    """Without a length penalty its sum of logarithms is seldom below the greedy one's."""
    texts = [english for english, _ in phrases()[::25]]
    sums = []
    for beam in (1, 4):
        search = Translator(trained.net, VOCABULARY, beam=beam, batch=8, longest=16, alpha=0.0)
        pairs = list(zip(texts, search(texts), strict=True))
        rows = pad(encode(pairs, VOCABULARY), (24, 24))
        wrong = trained.net(*rows.x).log_softmax().data
        each = np.take_along_axis(wrong, rows.labels[..., None], 2)[..., 0] * rows.mask
        sums.append(each.sum(axis=1))
    assert (sums[1] >= sums[0] - 1e-3).mean() >= 0.8


def test_one_step_of_a_beam() -> None:
    """Two beams, five pieces; by hand: of 0.5 and 0.4, times 0.6, 0.3 and 0.1."""
    logits = np.log(np.array([[[1, 1, 0.6, 0.3, 0.1]] * 2]))
    start = np.full((1, 2, 4), PAD), np.log([[0.5, 0.4]]), np.zeros((1, 2), bool), np.zeros((1, 2))
    found, scores, ended, lengths = _extend(logits, 0, *start)
    assert found[0, :, 1].tolist() == [END, END] and ended.all()
    np.testing.assert_allclose(np.exp(scores), [[0.3, 0.24]])
    start = found, np.log([[0.1, 0.5]]), np.array([[True, False]]), lengths
    found, scores, ended, lengths = _extend(logits, 1, *start)
    assert found[0, :, 2].tolist() == [END, 3] and ended.tolist() == [[True, False]]
    np.testing.assert_allclose(np.exp(scores), [[0.3, 0.15]])
    assert lengths.tolist() == [[2, 2]]


def test_what_cannot_be_translated() -> None:
    net = small("transformer")
    translate = Translator(net, VOCABULARY, batch=2, longest=16)
    for texts, says in (
        (["he is " * 9], "pieces, wants 1 to 15"),
        ([" "], "pieces"),
        ("he", "list"),
    ):
        with pytest.raises(InputError, match=says):
            translate(texts)
    assert translate([]) == [] and isinstance(translate(["жжж is"])[0], str)
    with pytest.raises(InputError, match="beam"):
        Translator(net, VOCABULARY, beam=3, batch=2)


def test_a_small_arena_says_so(trained: Trainer) -> None:
    with pytest.raises(InputError, match="use a smaller batch"):
        Translator(trained.net, VOCABULARY, trained, batch=4096, longest=48)


def test_the_example() -> None:
    from tinytrain.bench import example_translation

    learned, others = example_translation.main(epochs=30)
    assert learned > 30 and others > 0


def test_networks_are_planned_by_shape_alone() -> None:
    net = Transformer()
    assert net.count_parameters() == 1_310_208 and AttentionGRU().count_parameters() == 681_088
    plan = tt.plan(net, batch=2, label_spec=net.label_spec)
    assert plan.arena_bytes > 4 * net.count_parameters()
