"""Train the character embedding on Omniglot's background alphabets by one-shot episodes; the
evaluation alphabets are in no part of it. `python -m tinytrain.models.train_characters --data
FOLDER --save FILE` makes the network that ships.

Omniglot (Lake et al. 2015): omniglot28.npz holds `images` (28x28, ink 255), `cls`, `alphabet`,
`evaluation` and the official one-shot runs. The loss is that of prototypical networks (Snell et al.
2017) where every drawing in turn is the one example of its character.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Spec, Trainer, models, nn, ops
from tinytrain.data.affine import affine, random_affine
from tinytrain.models import shipped
from tinytrain.models.train import Recipe, parser

EPISODES = 3000
WAYS, DRAWINGS = 60, 3  # characters of an episode, and drawings of each
TOGETHER, ALPHABETS = 20, 3  # characters of each alphabet, and alphabets, of most episodes
WHOLE = 0.7  # share of episodes of whole alphabets, whose characters are alike
DISTORTION = {"turn": 12, "scale": 0.15, "shear": 0.15, "shift": 0.06}
MEAN, DEVIATION = 0.1, 0.25  # of the ink
BACKGROUND = -MEAN / DEVIATION
RECIPE = Recipe(epochs=1, batch=DRAWINGS * WAYS, rate=3e-3, decay=0.01, warm=30)


class Characters:
    """Drawings (characters, 20, 28, 28, 1), normalised, and each character's alphabet."""

    def __init__(self, path: Any, evaluation: bool):
        with np.load(path) as held:
            mine = held["evaluation"] == evaluation
            order = np.lexsort((held["drawer"][mine], held["cls"][mine]))
            drawn = held["images"][mine][order].astype(np.float32) / 255
            self.alphabet = held["alphabet"][mine][order][::20]
        self.drawings = ((drawn - MEAN) / DEVIATION).reshape(-1, 20, 28, 28, 1)

    def __len__(self) -> int:
        return len(self.drawings)


def distorted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image through a small random affine map."""
    return affine(images, random_affine(len(images), rng, **DISTORTION), BACKGROUND)


def episode(characters: Characters, rng: np.random.Generator) -> np.ndarray:
    """(DRAWINGS * WAYS, 28, 28, 1): a drawing of every character, then another of each, and so on.
    An alphabet, or a character, is turned by a random multiple of 90 degrees: it counts as new."""
    if rng.random() < WHOLE:
        names, counts = np.unique(characters.alphabet, return_counts=True)
        chosen = rng.choice(names[counts >= TOGETHER], ALPHABETS, replace=False)
        groups = [np.flatnonzero(characters.alphabet == a) for a in chosen]
        picked = np.concatenate([rng.choice(g, TOGETHER, replace=False) for g in groups])
        turns = np.repeat(rng.integers(0, 4, ALPHABETS), TOGETHER)
    else:
        picked = rng.choice(len(characters), WAYS, replace=False)
        turns = rng.integers(0, 4, WAYS)
    which = rng.permuted(np.tile(np.arange(20), (WAYS, 1)), axis=1)[:, :DRAWINGS]
    drawn = characters.drawings[picked[:, None], which]
    for turn in range(1, 4):
        drawn[turns == turn] = np.rot90(drawn[turns == turn], turn, axes=(2, 3))
    return distorted(drawn.swapaxes(0, 1).reshape(-1, 28, 28, 1), rng)


def labels() -> tuple[np.ndarray, np.ndarray]:
    """For `one_shot_loss`: the character of each drawing beside each set of examples, and a mask
    that leaves out the set that the drawing is in."""
    drawing, character = np.divmod(np.arange(DRAWINGS * WAYS, dtype=np.int32), WAYS)
    mask = drawing[:, None] != np.arange(DRAWINGS)
    return np.repeat(character[:, None], DRAWINGS, 1), mask.astype(np.float32)


def one_shot_loss(embedded, characters, mask):
    """Mean cross-entropy over minus the squared distances to one drawing of each character, each
    set of drawings in turn."""
    dots = embedded @ embedded.transpose(1, 0)
    squares = ops.sum(embedded * embedded, axis=1).reshape(1, -1)
    closeness = (dots * 2.0 - squares).reshape(embedded.shape[0], DRAWINGS, WAYS)
    return ops.cross_entropy(closeness, characters, mask)


def pretrain(
    characters: Characters, seed: int = 0, episodes: int = EPISODES, backend: str = "auto"
) -> nn.Module:
    """A CharacterCNN trained on episodes of these characters."""
    net = models.build("character_cnn", seed=seed)
    trainer = Trainer(
        net,
        loss=one_shot_loss,
        optimizer=RECIPE.optimizer(episodes),
        batch=RECIPE.batch,
        microbatch=RECIPE.batch,
        label_spec=[Spec((DRAWINGS,), "int32"), Spec((DRAWINGS,))],
        seed=seed,
        backend=backend,
    )
    rng, wanted = np.random.default_rng([seed, 2]), labels()
    for _ in range(episodes):
        trainer.step(episode(characters, rng), wanted)
    return net


def main() -> None:
    """Train on the background alphabets and save."""
    options = {"save": "characters.npz", "episodes": EPISODES}
    given = parser(__doc__, "omniglot28.npz", **options).parse_args()
    path = Path(given.data) / "omniglot28.npz"
    net = pretrain(Characters(path, evaluation=False), given.seed, given.episodes)
    shipped.save(net, given.save)


if __name__ == "__main__":
    main()
