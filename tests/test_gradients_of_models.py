"""Whole networks of the zoo against a central difference, under each policy that serves them;
`tinytrain bench gradients` does it for every network."""

from __future__ import annotations

import pytest

from tinytrain import models
from tinytrain.bench import gradients

SMALL = {
    "digits_cnn": {},
    "ds_cnn": {"channels": 4, "input_shape": (12, 6, 1)},
    "autoencoder": {},
    "mobilenetv2": {"width": 0.25, "input_shape": (16, 16, 3), "norm": "group"},
    "revnet": {"units": (2, 2), "widths": (16, 16, 32), "input_shape": (8, 8, 3)},
}
REVERSIBLE = ("revnet",)


@pytest.mark.parametrize("policy", [p for p in gradients.POLICIES if p != "auto"])
@pytest.mark.parametrize("name", SMALL)
def test_a_network_s_gradient_is_right(name, policy):
    error = gradients.error(models.build(name, **SMALL[name]), policy)
    if policy == "invert" and name not in REVERSIBLE:
        assert isinstance(error, str) and "invert" in error
    else:
        assert error <= gradients.MOST


@pytest.mark.parametrize("name", ["digits_cnn", "ds_cnn", "revnet"])
def test_a_budget_s_mixture_is_right(name):
    """What the solver mixes where there are fewer bytes than keep holds."""
    assert gradients.error(models.build(name, **SMALL[name]), "auto") <= gradients.MOST


def test_a_wrong_gradient_is_found(monkeypatch):
    """Three parts in a thousand of one product's are enough."""
    from tinytrain.kernels import numpy_

    right = numpy_.matmul_tn

    def wrong(y, *rest):
        right(y, *rest)
        y *= 1.003

    monkeypatch.setattr(numpy_, "matmul_tn", wrong)
    assert gradients.error(models.build("mlp", hidden=(8,)), "keep") > gradients.MOST
