"""Networks that learn a user's few examples: their layers, their losses and what ships of them."""

from __future__ import annotations

import numpy as np

import tinytrain as tt
from tinytrain import models, nn

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_mean_and_maximum_of_each_channel_side_by_side():
    x = normal(2, 5, 4, 3)
    y = nn.GlobalAvgMaxPool2d()(x).data
    np.testing.assert_allclose(y[:, :3], x.mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[:, 3:], x.max((1, 2)))
    tt.check.gradients(lambda x: nn.GlobalAvgMaxPool2d()(x), x)


def test_what_a_network_embeds_is_what_its_head_reads():
    net = models.build("spoken_cnn").eval()
    x = normal(3, 48, 32, 1)
    np.testing.assert_array_equal(net(x).data, net.layers[-1](net.embed(tt.Tensor(x)).relu()).data)


def test_a_wavenet_hears_nothing_before_it_is_said():
    """What comes later leaves every earlier output as it was."""
    net = models.build("wavenet", input_shape=(20, 4), channels=6)
    x = normal(1, 20, 4)
    later = x.copy()
    later[:, 12:] += 1
    seen, changed = ([b(tt.Tensor(a))[1].data for b in first(net)] for a in (x, later))
    for a, b in zip(seen, changed, strict=True):
        np.testing.assert_array_equal(a[:, :12], b[:, :12])
        assert abs(a[:, 12:] - b[:, 12:]).max() > 0


def first(net):
    """Each block right behind the first convolution."""
    return [lambda x, block=block: block(net.first(x)) for block in net.blocks]


def test_a_learned_scale_begins_where_it_should():
    net = models.build("character_cnn")
    flat = nn.Sequential(*net.layers[:-1])
    x = normal(2, 28, 28, 1)
    np.testing.assert_allclose(net(x).data, flat(x).data * 4 / np.sqrt(432), rtol=1e-5)


def test_a_state_that_begins_at_zero_is_no_reader_of_the_input():
    """A GRU's first state has no input of its own; its net is planned within a budget all the
    same."""
    net = models.build("stroke_gru", input_shape=(6, 4), hidden=8)
    whole = tt.plan(net, batch=4)
    tight = tt.plan(net, batch=4, ram=int(0.9 * whole.arena_bytes))
    assert tight.fits and tight.arena_bytes < whole.arena_bytes
