"""A synthetic bearing has the physics it states, and an autoencoder that knows it whole hears a
pit."""

from __future__ import annotations

import numpy as np
import pytest

from tinytrain.data.vibration import BINS, Bearing, spectra
from tinytrain.errors import InputError
from tinytrain.learn.roc import auc

STEADY = Bearing(speed=0.0, drift=0.0, slip=0.0)


def test_balls_meet_the_pit_as_often_as_the_geometry_says() -> None:
    """6205, nine balls: 3.585 a turn, the figure in its maker's tables."""
    assert STEADY.impacts == pytest.approx(3.585, abs=1e-3)
    hits = STEADY._impacts(np.random.default_rng(0), np.arange(12000) * 29 / 12000)
    assert (hits > 0).sum() == pytest.approx(29 * 3.585, abs=1)
    assert np.diff(np.flatnonzero(hits)) == pytest.approx(12000 / (29 * 3.585), abs=1)


def test_an_impact_rings_at_the_resonance_and_dies_as_damped() -> None:
    ring = STEADY._ring()
    lines = np.abs(np.fft.rfft(ring, 12000))
    assert lines.argmax() == pytest.approx(3200, abs=20)
    half = np.abs(lines - lines.max() / np.sqrt(2)).argsort()[:2]  # 3 dB down on either side
    assert abs(half[0] - half[1]) == pytest.approx(2 * 0.04 * 3200, rel=0.1)
    assert abs(ring[-1]) < 2e-3


def test_the_envelope_beats_at_the_impacts_and_only_with_a_pit() -> None:
    rate = 29 * STEADY.impacts
    line = round((rate - 1) / 2)
    for pit, stands_out in ((0.0, False), (1.5, True)):
        found = np.mean([spectra(STEADY.record(k, pit=pit))[BINS:] for k in range(6)], axis=0)
        around = np.r_[found[line - 12 : line - 3], found[line + 4 : line + 13]]
        assert (found[line - 1 : line + 2].max() > around.max() + 1.0) == stands_out


def test_recordings_come_again_and_gain_does_not_matter() -> None:
    bearing = Bearing()
    one = bearing.record(7)
    assert one.shape == (12000,) and (one == bearing.record(7)).all()
    assert (one != bearing.record(8)).any() and len(bearing.record(7, seconds=0.25)) == 3000
    np.testing.assert_allclose(spectra(3 * one), spectra(one), atol=1e-3)


@pytest.mark.parametrize(
    "sound", [np.zeros(12000), np.ones((12000, 2)), np.arange(9), [np.nan] * 2000]
)
def test_what_cannot_be_heard(sound) -> None:
    with pytest.raises(InputError, match="spectra"):
        spectra(sound)
    with pytest.raises(InputError, match="vibration"):
        Bearing().record(0, pit=-1)


def test_auc_by_hand() -> None:
    """Of six pairs four are right and one is a tie."""
    assert auc([1, 2, 3], [2, 4]) == pytest.approx((1 + 0.5 + 3) / 6)
    assert auc([0], [1]) == 1 and auc([1], [0]) == 0
    for normal, anomalous in (([], [1]), ([1], []), ([np.nan], [1])):
        with pytest.raises(InputError, match="auc"):
            auc(normal, anomalous)


def test_the_example_finds_pits() -> None:
    from tinytrain.bench import example_anomaly

    assert example_anomaly.main(recordings=90) > 0.9


def test_the_benchmarks_rows() -> None:
    from tinytrain.bench import learn, learn_anomaly

    rows = learn_anomaly.rows(None, learn.Nets(None), train=40, test=10)
    assert [r.task for r in rows] == [f"pit {p}" for p in learn_anomaly.PITS]
    assert rows[-1].ours > 0.95 and rows[-1].ours > rows[0].ours
