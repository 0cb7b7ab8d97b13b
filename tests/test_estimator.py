"""The estimators: scikit-learn's own check, streams that do not forget, pickles, budgets."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import data, models, nn
from tinytrain.errors import BudgetError, InputError
from tinytrain.learn.replay import Reservoir
from tinytrain.spec import Spec


@pytest.mark.parametrize("kind", [tt.Classifier, tt.Regressor])
def test_scikit_learns_own_check_passes(kind) -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="sklearn is missing")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not inherit from `sklearn.base.BaseEstimator`")
        done = checks.check_estimator(kind(), on_skip=None)
    skipped = {c["check_name"] for c in done if c["status"] == "skipped"}
    ours = {"check_array_api_input", "check_dataframe_column_names_consistency"}
    pandas = {f"check_{kind.kind}_data_not_an_array"}
    assert skipped <= ours | pandas, "of arrays that are not NumPy's, and of pandas alone"
    assert len(done) > 40


@pytest.fixture(scope="module")
def digits():
    train, test = data.digits()
    return train.x, train.y, test.x, test.y


def test_it_needs_no_scikit_learn() -> None:
    code = (
        "import sys, numpy as np; sys.modules['sklearn'] = None; import tinytrain as tt; "
        "x = np.eye(6, dtype='float32'); y = np.arange(6) % 2; "
        "e = tt.Classifier(backend='numpy', batch=2, epochs=9).fit(x, y); print(e.score(x, y))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) > 0.5


def test_images_are_learned_by_a_network_of_the_zoo(digits) -> None:
    x, y, test_x, test_y = digits
    names = np.array([f"digit {c}" for c in range(10)])
    found = tt.Classifier("digits_cnn", input_shape=(8, 8, 1), epochs=4, lr=0.01, ram="200K")
    found.fit(x, names[y])
    assert found.score(test_x, names[test_y]) > 0.9
    flat = found.predict(test_x.reshape(len(test_x), -1))  # flat samples are as good
    assert np.array_equal(flat, found.predict(test_x))
    assert found.predict_proba(test_x).shape == (len(test_x), 10)
    assert found.ram_bytes_ == found.plan_.arena_bytes <= 200 * 1024


def forgetting(digits, replay) -> tuple[float, tt.Classifier]:
    """Accuracy on digits 0 to 4 after a stream of them, then of 5 to 9."""
    x, y, test_x, test_y = digits
    order = np.argsort(y >= 5, kind="stable")
    found = tt.Classifier("digits_cnn", input_shape=(8, 8, 1), lr=0.003, replay=replay, batch=4)
    for part in np.array_split(order, 20):
        found.partial_fit(x[part], y[part], classes=range(10))
    old = test_y < 5
    return found.score(test_x[old], test_y[old]), found


def test_a_stream_is_not_forgotten_where_some_of_it_is_kept(digits) -> None:
    without, plain = forgetting(digits, None)
    with_it, found = forgetting(digits, "32K")
    assert without < 0.2 and with_it > 0.7
    held = found._reservoir
    assert held.nbytes <= 32 * 1024 and held.count == held.capacity == 32 * 1024 // 260
    assert found.ram_bytes_ == found.plan_.arena_bytes + held.nbytes
    counts = np.bincount(held.group, minlength=10)
    assert counts.min() >= held.capacity // 10 - 1  # as many of each class
    assert plain.ram_bytes_ == plain.plan_.arena_bytes


def test_replay_counts_against_the_budget(digits) -> None:
    x, y, *_ = digits
    given = {"net": "digits_cnn", "input_shape": (8, 8, 1), "batch": 8, "epochs": 1}
    found = tt.Classifier(**given, replay="8K", ram="96K").fit(x[:50], y[:50])
    assert found.ram_bytes_ <= 96 * 1024
    assert found.ram_bytes_ - found.plan_.arena_bytes == found._reservoir.nbytes > 8 * 1024 - 260
    with pytest.raises(BudgetError, match="replay alone takes"):
        tt.Classifier(**given, replay="96K", ram="64K").fit(x[:50], y[:50])
    with pytest.raises(InputError, match="one sample takes 260"):
        tt.Classifier(**given, replay=100).fit(x[:50], y[:50])


def test_a_reservoir_is_a_fair_draw_of_one_class() -> None:
    held = Reservoir(50 * 8, Spec(()), Spec((), "int32"), seed=1)
    times = np.zeros(200)
    for seed in range(100):
        held = Reservoir(50 * 8, Spec(()), Spec((), "int32"), seed=seed)
        held.add(np.arange(200, dtype=np.float32), np.zeros(200, np.int32))
        assert len(set(held.x.tolist())) == 50  # no sample twice
        times[held.x.astype(int)] += 1
    early, late = times[:100].mean(), times[100:].mean()
    assert abs(early - 25) < 3 and abs(late - 25) < 3


@pytest.mark.parametrize("kept", [None, "4K"])
def test_a_pickle_answers_and_goes_on_as_before(digits, kept) -> None:
    x, y, test_x, _ = digits
    found = tt.Classifier(epochs=2, replay=kept).fit(x[:200].reshape(200, -1), y[:200])
    again = pickle.loads(pickle.dumps(found))
    flat = test_x.reshape(len(test_x), -1)
    assert np.array_equal(again.predict_proba(flat), found.predict_proba(flat))
    if kept is None:  # what is drawn for replay depends on draws before
        for each in (found, again):
            each.partial_fit(x[200:300].reshape(100, -1), y[200:300])
        assert np.array_equal(again.predict_proba(flat), found.predict_proba(flat))
    else:
        assert again._reservoir.count == found._reservoir.count


def test_a_module_of_ones_own_is_copied_and_several_outputs_are_learned() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3))
    y = np.stack([x @ [1, 0, -1], x @ [0, 1, 1]], axis=1)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
    before = net.state_dict()
    found = tt.Regressor(net, epochs=80, lr=0.02).fit(x, y)
    assert found.score(x, y) > 0.95 and found.predict(x).shape == (100, 2)
    assert all(np.array_equal(a, before[n]) for n, a in net.state_dict().items())
    with pytest.raises(InputError, match="net gives"):
        tt.Regressor(net).fit(x, y[:, 0])


def test_mistakes_are_said_and_leave_what_was_learned(digits) -> None:
    x, y, test_x, _ = digits
    x, flat = x[:100].reshape(100, -1), test_x.reshape(len(test_x), -1)
    found = tt.Classifier(epochs=2).fit(x, y[:100])
    before = found.predict_proba(flat)
    for call, says in (
        (lambda: found.fit(x, np.zeros(100)), "one class only"),
        (lambda: found.fit(x * np.nan, y[:100]), "NaN"),
        (lambda: found.fit(x[:, :0], y[:100]), "0 feature"),
        (lambda: found.partial_fit(x, y[:100] + 7), "not among the classes"),
        (lambda: found.partial_fit(x, y[:100], classes=range(3)), "not what the first call said"),
        (lambda: found.predict(x[:, :3]), "expecting 64 features"),
        (lambda: found.set_params(colour=1), "Invalid parameter 'colour'"),
        (lambda: tt.Classifier("mpl").fit(x, y[:100]), "unknown model"),
        (lambda: tt.Classifier(models.build("lenet5")).fit(x, y[:100]), "features"),
        (lambda: tt.Classifier().predict(x), "not fitted yet"),
    ):
        with pytest.raises(InputError, match=says):
            call()
    assert np.array_equal(found.predict_proba(flat), before)
    assert repr(tt.Classifier(lr=0.1)) == "Classifier(lr=0.1)"
