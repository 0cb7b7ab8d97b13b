"""invert: nothing is saved; a consumer is run backwards, as reversible networks allow.

RevNet (Gomez et al. 2017) and i-RevNet (Jacobsen et al. 2018): x1 = y1 - F(x2). F's forward is run
once, for the inverse and for the gradient alike. Float32 rounds, so what comes back differs in its
last bits.
"""


def save(b, v: int) -> None:
    """Nothing: the consumer's output holds what v was."""


def restore(b, v: int) -> int:
    """v from the output of the node that took it in."""
    return b.inverted(v)
