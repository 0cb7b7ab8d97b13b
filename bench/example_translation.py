"""An example: a small transformer learns 200 pairs of sentences, English to French, by heart.

It keeps every tenth pair to itself and shows what becomes of those; `bench/translation.py` is the
whole task.
"""

from tinytrain import Trainer, losses, nn, optim
from tinytrain.data.pairs import encode, pack, phrases
from tinytrain.data.vocabulary import Vocabulary
from tinytrain.learn.bleu import bleu
from tinytrain.learn.translate import Translator
from tinytrain.models.text import Transformer

EPOCHS, WIDTH = 60, (56, 64)


def main(epochs: int = EPOCHS) -> tuple[float, float]:
    """BLEU on the pairs learned and on the others."""
    pairs = phrases()
    held, seen = pairs[::10], [p for k, p in enumerate(pairs) if k % 10]
    vocabulary = Vocabulary.learn((text for pair in seen for text in pair), size=400)
    rows = pack(encode(seen, vocabulary), WIDTH, seed=0)
    with nn.seeded(0):
        net = Transformer(vocabulary.pieces, dim=64, hidden=128, layers=1, width=WIDTH)
    schedule = optim.WarmupLR(optim.CosineLR(5e-3, epochs * len(rows.source) // 4), 20)
    loss, optimizer = losses.CrossEntropy(0.1), optim.AdamW(schedule)
    trainer = Trainer(net, loss, optimizer, batch=4)
    trainer.fit(rows.x, rows.y, epochs)
    translate = Translator(net, vocabulary, trainer, batch=16, longest=24)
    for english, french in held[:5]:
        print(f"{english} | {translate([english])[0]} | {french}")
    found = [bleu(translate([e for e, _ in p]), [[f] for _, f in p]) for p in (seen, held)]
    print(f"BLEU {found[0]:.1f} on {len(seen)} pairs learned, {found[1]:.1f} on {len(held)} others")
    return found[0], found[1]


if __name__ == "__main__":
    main()
