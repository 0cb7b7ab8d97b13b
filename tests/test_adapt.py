"""Adapting: every way learns and is one object, what is frozen stays and is inference only, and
mistakes are one clear line that changes nothing.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import data, models, nn, optim
from tinytrain.cli import main
from tinytrain.errors import BudgetError, InputError
from tinytrain.learn.learner import WAYS
from tinytrain.learn.nearest import SHARPNESS
from tinytrain.learn.partial import layers_of

SPARSE = {"layers": {"4": 0.5}}  # half the input channels of digits_cnn's second convolution


@pytest.fixture(scope="module")
def digits():
    """A network that knows the digits below 7, five examples of each of ten, and a test set."""
    train, test = data.digits()
    known = train.y < 7
    net = models.build("digits_cnn", classes=7)
    trainer = tt.Trainer(net, optimizer=optim.SGD(lr=0.02, momentum=0.9), batch=16)
    trainer.fit(train.x[known], train.y[known], epochs=6)
    few = np.concatenate([np.flatnonzero(train.y == c)[:5] for c in range(10)])
    return net, (train.x[few], train.y[few]), (test.x[:200], test.y[:200])


def learner(digits, how: str, **settings) -> tt.Learner:
    more = SPARSE if how == "sparse" else {}
    return tt.adapt(digits[0], how, **{**more, **settings})


def batch_normed() -> nn.Module:
    """Two convolutions with batch norm, whose statistics have been somewhere."""
    with nn.seeded(3):
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
        layers += [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
        net = nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Linear(4, 3))
    net.input_shape = (6, 6, 1)
    for name, p in net.named_leaves().items():
        if name.endswith("running_var"):
            p.data = np.linspace(0.5, 2, 4, dtype=np.float32)
    return net


def some(net: nn.Module, n: int = 12):
    x = np.random.default_rng(0).standard_normal((n, *net.input_shape)).astype(np.float32)
    return x, np.arange(n, dtype=np.int32) % 3


@pytest.mark.parametrize("how", WAYS)
def test_every_way_learns_and_comes_back_from_a_file(digits, how, tmp_path) -> None:
    net, few, test = digits
    found = learner(digits, how).fit(*few)
    assert found.evaluate(*test)["accuracy"] > 0.72
    path = str(tmp_path / "it.npz")
    found.save(path)
    again = tt.Learner.restore(path, net)
    assert np.array_equal(again.predict_proba(test[0]), found.predict_proba(test[0]))
    for each in (found, again):
        each.partial_fit(few[0][:20], few[1][:20])
    assert np.array_equal(again.predict_proba(test[0]), found.predict_proba(test[0]))
    assert again.classes == list(range(10)) and again.how == how


@pytest.mark.parametrize("how", ["prototypes", "knn"])
def test_a_class_is_added_by_one_example_and_removed(digits, how) -> None:
    _, (x, y), (test_x, test_y) = digits
    known = y != 6
    found = learner(digits, how).fit(x[known], y[known])
    found.add("six", x[~known][0])  # one sample, without a batch axis
    assert found.classes == [0, 1, 2, 3, 4, 5, 7, 8, 9, "six"]
    assert np.mean(found.predict(test_x[test_y == 6]) == "six") > 0.8
    found.add("six", x[~known][1:])
    found.remove(0)
    assert found.classes == [1, 2, 3, 4, 5, 7, 8, 9, "six"]
    assert 0 not in found.predict(test_x)
    others = (test_y > 0) & (test_y != 6)
    assert np.mean(found.predict(test_x[others]) == test_y[others]) > 0.6


def test_new_columns_stand_beside_learned_ones(digits) -> None:
    """Before any training a head of seven that gets three more loses little, and knows the new."""
    _, (x, y), (test_x, test_y) = digits
    found = learner(digits, "last").fit(x, y, epochs=0)
    assert found.classes == list(range(10))
    right = found.predict(test_x) == test_y
    assert right[test_y < 7].mean() > 0.75
    assert right[test_y >= 7].mean() > 0.2
    found.remove(3)
    assert found.classes == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    others = (test_y < 7) & (test_y != 3)
    assert np.mean(found.predict(test_x[others]) == test_y[others]) > 0.75


@pytest.mark.parametrize("how", [how for how in WAYS if how != "sparse"])
def test_what_is_frozen_stays_and_the_network_given_is_left_alone(how) -> None:
    net = batch_normed()
    before = net.state_dict()
    found = tt.adapt(net, how, batch=6, backend="numpy")
    x, y = some(net)
    found.fit(x, y, **({} if how in ("prototypes", "knn") else {"epochs": 2}))
    assert all(np.array_equal(a, before[name]) for name, a in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    if found.trainer is None:
        return
    after = found.trainer.net.state_dict()
    changed = {name for name in before if not np.array_equal(after[name], before[name])}
    trainable = {n for n, p in found.trainer.net.named_parameters() if p.requires_grad}
    assert changed == trainable
    expected = {
        "head": {"7.weight", "7.bias"},
        "biases": {"0.bias", "1.bias", "3.bias", "4.bias", "7.weight", "7.bias"},
        "last": set(dict(net.named_parameters())),
        "all": set(dict(net.named_parameters())),
    }
    assert trainable == expected[how]  # and never a running statistic


def test_a_frozen_part_keeps_nothing_for_backward() -> None:
    net = batch_normed()
    head = tt.adapt(net, "head", batch=4).plan
    assert head.policies["keep"] == 2  # what the head reads, and the gradient of the logits
    assert tt.adapt(net, "last", k=2, batch=4).plan.policies["keep"] > 2
    biases = tt.adapt(net, "biases", batch=4).plan
    kept = [s.op for s in biases.program.steps]
    assert "batch_norm_vjp_params" not in kept  # a bias that learns alone reads no activation
    assert "conv2d_vjp_w" not in kept


def test_a_bias_alone_learns_as_beside_its_weight() -> None:
    """The shorter way to a frozen norm's bias gradient gives what the longer one gives."""
    x, y = some(batch_normed())
    biases = []
    for extra in ((), ("4.weight",)):
        net = batch_normed().requires_grad_(False)
        for name, p in net.named_parameters():
            p.requires_grad = name in ("4.bias", *extra)
        net.layers[4].stored = True
        trainer = tt.Trainer(net, optimizer=optim.SGD(lr=0.1), batch=12, backend="numpy")
        trainer.step(x, y)
        biases.append(net.layers[4].bias.data.copy())
    assert np.abs(biases[0]).max() > 0
    np.testing.assert_allclose(*biases, rtol=1e-5, atol=1e-7)


def test_frozen_parameters_lie_in_flash_and_the_export_agrees() -> None:
    from tinytrain.ports import table

    net = batch_normed()
    found = tt.adapt(net, "last", k=1, batch=3, backend="numpy").fit(*some(net), epochs=1)
    plan = found.plan
    frozen = [p for n, p in net.named_leaves().items() if not n.startswith("7.")]
    assert plan.flash_bytes == sum(p.spec.nbytes for p in frozen)  # running statistics too
    words = table.encode(found.trainer)
    assert words[4] == plan.board_bytes < plan.arena_bytes
    assert tt.adapt(net, "last", k=1, batch=3, flash=True).ram_bytes == plan.board_bytes
    assert found.ram_bytes == plan.arena_bytes


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_prototypes_are_what_numpy_says(digits, metric) -> None:
    net, (x, y), (test_x, _) = digits
    found = learner(digits, "prototypes", metric=metric).fit(x, y)
    body = nn.Sequential(*net.layers[:-1])
    e, t = (body.eval()(a).numpy() for a in (x, test_x))
    body.train()
    if metric == "cosine":
        e, t = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (e, t))
    means = np.stack([e[y == c].mean(axis=0) for c in range(10)])
    if metric == "cosine":
        scores = SHARPNESS * t @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    else:
        scores = -((t[:, None] - means) ** 2).sum(axis=2)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.predict_proba(test_x), p, rtol=2e-3, atol=1e-5)


def test_neighbours_vote_among_the_nearest(digits) -> None:
    net, (x, y), (test_x, _) = digits
    found = learner(digits, "knn", neighbours=1, metric="euclidean").fit(x, y)
    e, t = (nn.Sequential(*net.layers[:-1])(a).numpy() for a in (x, test_x))
    nearest = ((t[:, None] - e) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(found.predict(test_x) == y[nearest]) > 0.99  # but for ties in rounding
    assert np.array_equal(found.predict(x), y)


def test_a_new_head_begins_as_nearest_class_mean(digits) -> None:
    _, (x, y), (test_x, _) = digits
    head = learner(digits, "head", classes=10).fit(x, y, epochs=0)
    mean = learner(digits, "prototypes", metric="euclidean").fit(x, y)
    assert np.mean(head.predict(test_x) == mean.predict(test_x)) > 0.98


def test_a_known_head_is_kept_and_grows(digits) -> None:
    net, _, (test_x, test_y) = digits
    known = test_y < 7
    found = learner(digits, "last")
    assert found.classes == list(range(7))  # it answers before it learns
    assert found.evaluate(test_x[known], test_y[known])["accuracy"] > 0.95
    with pytest.raises(InputError, match="y holds 7, 8, 9, which was never learned"):
        found.evaluate(test_x, test_y)
    named = models.build("digits_cnn", classes=7)
    named.load_state_dict(net.state_dict())
    named.classes = tuple("abcdefg")
    again = tt.adapt(named, "head", classes=list("gfedcba"))  # by name, in another order
    reversed_ = np.array(list("abcdefg"))[test_y[known]]
    assert again.evaluate(test_x[known], reversed_)["accuracy"] > 0.9


def test_an_embedding_network_gets_a_head(digits) -> None:
    net, (x, y), (test_x, test_y) = digits
    body = nn.Sequential(*net.layers[:-1])
    body.input_shape, body.embeds, body.metric = (8, 8, 1), True, "euclidean"
    for how in ("prototypes", "head", "last"):
        found = tt.adapt(body, how).fit(x, y)
        assert found.evaluate(test_x, test_y)["accuracy"] > 0.72
    whole = learner(digits, "prototypes", metric="euclidean").fit(x, y)
    same = tt.adapt(body, "prototypes").fit(x, y)
    assert np.array_equal(whole.predict(test_x), same.predict(test_x))


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_some_channels_compute_as_the_whole_and_learn_alone(digits, share) -> None:
    net, few, (test_x, _) = digits
    layers = {"4": share}
    found = tt.adapt(net, "sparse", layers=layers, classes=None)
    found.fit(few[0][few[1] < 7], few[1][few[1] < 7], epochs=0)
    whole = tt.adapt(net, "last").predict_proba(test_x)
    np.testing.assert_allclose(found.predict_proba(test_x), whole, atol=1e-5)
    before = {n: p.data.copy() for n, p in found.trainer.net.named_parameters()}
    found.partial_fit(*few)
    assert found.trainer.net.layers[4].weight.shape == (3, 3, round(8 * share), 16)
    after = {n: p.data for n, p in found.trainer.net.named_parameters()}
    changed = {
        n for n in before if before[n].shape != after[n].shape or (before[n] != after[n]).any()
    }
    assert {"4.weight", "4.bias", "11.weight", "11.bias"} <= changed
    assert "4.rest" not in changed and "0.weight" not in changed
    assert found.plan.arena_bytes < tt.adapt(net, "sparse", layers=["4"]).plan.arena_bytes


def test_layers_are_named_in_the_order_of_use() -> None:
    assert [layer.name for layer in layers_of(batch_normed())] == ["0", "3", "7"]
    assert layers_of(batch_normed())[1].parameters == ["3.weight", "3.bias", "4.weight", "4.bias"]


def test_a_contribution_is_what_a_small_step_gains(digits) -> None:
    """A step of Adam on one layer alone takes rate * gain off the loss, to first order."""
    net, (x, y), _ = digits
    x, y = x[y < 7], y[y < 7]
    rate = 2e-5
    whole = {c.layer: c for c in tt.adapt(net, "sparse").contributions(x, y) if c.share == 1}
    assert set(whole) == {"0", "4", "9"}
    for layer in layers_of(net)[:-1]:
        one = models.build("digits_cnn", classes=7)
        one.load_state_dict(net.state_dict())
        for name, p in one.named_parameters():
            p.requires_grad = name in layer.parameters
        trainer = tt.Trainer(one, optimizer=optim.Adam(lr=rate), batch=len(x))
        before = trainer.evaluate(x, y)["loss"]
        trainer.step(x, y)
        gained = (before - trainer.evaluate(x, y)["loss"]) / rate
        assert gained == pytest.approx(whole[layer.name].gain, rel=0.1)
    assert whole["9"].nbytes > whole["0"].nbytes > 0


def test_layers_are_chosen_by_contribution_within_the_budget(digits) -> None:
    net, (x, y), test = digits
    found = tt.adapt(net, "sparse", flash=True, ram="24K", batch=1).fit(x, y)
    shares = found._decided().layers
    best = tt.adapt(net, "sparse").contributions(x, y)[0]
    assert shares[best.layer] >= best.share and len(shares) > 1
    assert found.ram_bytes <= 24 * 1024
    assert found.evaluate(*test)["accuracy"] > 0.72
    free = tt.adapt(net, "sparse").fit(x, y, epochs=1)
    assert free.trainer is not None and free._decided().layers


@pytest.mark.parametrize("how", ["prototypes", "last"])
def test_what_is_none_of_the_classes_can_be_said_to_be_unknown(digits, how) -> None:
    _, (x, y), (test_x, test_y) = digits
    found = learner(digits, how, metric="cosine").fit(x[y < 7], y[y < 7])
    answers = found.predict(test_x, at_least=0.9, unknown="none of them")
    odd = answers == "none of them"
    assert odd[test_y >= 7].mean() > odd[test_y < 7].mean() + 0.3
    known = (test_y < 7) & ~odd
    assert np.mean(answers[known] == test_y[known]) > 0.95
    assert (
        found.predict(test_x, at_least=1.0)[0] is None or found.predict_proba(test_x)[0].max() == 1
    )
    with pytest.raises(InputError, match="at_least"):
        found.predict(test_x, at_least=2)


@pytest.mark.parametrize("how", ["prototypes", "knn", "head", "all"])
def test_a_class_without_an_example_is_named_and_never_answered(digits, how) -> None:
    _, (x, y), (test_x, _) = digits
    found = learner(digits, how, classes=list("abcdef"))
    with pytest.warns(UserWarning, match="no example of class 'c', 'd', 'e', 'f'"):
        found.fit(x[y < 2], np.array(list("ab"))[y[y < 2]])
    p = found.predict_proba(test_x)
    assert (p[:, 2:] == 0).all() and np.allclose(p.sum(axis=1), 1)
    with pytest.warns(UserWarning, match="no example of class 'd', 'e', 'f'"):
        found.partial_fit(x[y < 3], np.array(list("abc"))[y[y < 3]])
    assert (found.predict(test_x) == "c").any()


def test_a_learner_keeps_examples_for_replay(digits, tmp_path) -> None:
    net, (x, y), (test_x, test_y) = digits
    found = tt.adapt(net, "last", replay="8K").fit(x, y)
    plain = tt.adapt(net, "last").fit(x, y)
    assert found.ram_bytes - found.plan.arena_bytes == 8192 // 260 * 260
    nines = test_x[test_y == 9]
    for _ in range(8):
        for each in (found, plain):
            each.partial_fit(np.concatenate([nines, nines[:1]]), [9] * len(nines) + [8])
    others = test_y != 9
    kept, lost = (each.evaluate(test_x[others], test_y[others]) for each in (found, plain))
    assert kept["accuracy"] > lost["accuracy"] + 0.1
    path = str(tmp_path / "it.npz")
    found.save(path)
    again = tt.Learner.restore(path, net)._decided().reservoir
    assert np.array_equal(again.all()[0], found._decided().reservoir.all()[0])
    found.remove(3)
    held = found._decided().reservoir
    assert held.count < again.count and held.all()[1].max() == 8
    found.partial_fit(x[y != 3], y[y != 3])


def test_auto_goes_by_the_examples_and_the_budget(digits) -> None:
    net, (x, y), _ = digits
    assert tt.adapt(net, examples=1).how == "prototypes"
    assert tt.adapt(net, examples=5).how == "last"
    assert tt.adapt(net, examples=100).how == "all"
    assert tt.adapt(net, examples=5, ram="17K").how == "prototypes"
    assert tt.adapt(net, examples=5, ram="24K", batch=1).how == "sparse"
    found = tt.adapt(net)
    with pytest.raises(InputError, match="decides by the first examples"):
        found.plan.dump()
    assert found.fit(x[y < 3], y[y < 3]).how == "last"
    few = np.concatenate([np.flatnonzero(y == c)[:1] for c in range(10)])
    assert found.fit(x[few], y[few]).how == "prototypes"  # fit begins anew
    assert found.trainer is None


def test_under_a_budget_the_optimizer_is_one_that_fits(digits) -> None:
    net, few, test = digits
    free = tt.adapt(net, "last", batch=1)
    assert "AdamW" in repr(free.fit(*few, epochs=1).trainer.optimizer)
    tight = tt.adapt(net, "last", batch=1, ram=24 * 1024, flash=True).fit(*few)
    assert tight.ram_bytes <= 24 * 1024 < free.ram_bytes
    assert "SGD" in repr(tight.trainer.optimizer)
    assert tight.evaluate(*test)["accuracy"] > 0.72


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f, x, y: f.fit(x[y == 3], y[y == 3]), "one class only"),
        (lambda f, x, y: f.fit(x[:, :4], y), "the network wants"),
        (lambda f, x, y: f.fit(x[:0], y[:0]), "no sample"),
        (lambda f, x, y: f.fit(x, y[:-1]), "labels for"),
        (lambda f, x, y: f.fit(x, y + 0.5), "whole numbers or strings"),
        (lambda f, x, y: f.fit(x * np.nan, y), "nan"),
        (lambda f, x, y: f.fit(x, y, epochs=-1), "epochs"),
        (lambda f, x, y: f.partial_fit(x, y[:, None]), "one label a sample"),
        (lambda f, x, y: f.add("cat", x[:2]), "learns a class by training"),
        (lambda f, x, y: f.remove("cat"), "there is no class 'cat'"),
        (lambda f, x, y: f.evaluate(x, np.full(len(y), 12)), "never learned"),
        (lambda f, x, y: f.predict(x[0]), "x"),
    ],
)
def test_bad_input_is_said_and_changes_nothing(digits, call, says) -> None:
    _, (x, y), (test_x, _) = digits
    found = learner(digits, "last").fit(x, y, epochs=2)
    before = found.predict_proba(test_x)
    with pytest.raises(InputError, match=says):
        call(found, x, y)
    assert found.classes == list(range(10))
    assert np.array_equal(found.predict_proba(test_x), before)


def test_settings_that_cannot_be_are_refused(digits, tmp_path) -> None:
    net = digits[0]
    for given, says in (
        ({"how": "best"}, "unknown way"),
        ({"how": "last", "k": 9}, "k is 9; this network has 4 layers"),
        ({"how": "sparse", "layers": {"5": 1.0}}, "there is no layer '5'"),
        ({"how": "sparse", "layers": {"4": 2}}, "wants a share"),
        ({"metric": "manhattan", "how": "knn"}, "unknown metric"),
        ({"colour": 3}, "takes no 'colour'"),
        ({"examples": 0}, "examples is 0"),
        ({"classes": ["a", "a"], "how": "head"}, "twice"),
    ):
        with pytest.raises(InputError, match=says):
            tt.adapt(net, **given).plan.dump()
    with pytest.raises(BudgetError, match="missing"):
        tt.adapt(net, "prototypes", ram="8K").add("a", np.zeros((8, 8, 1), np.float32))
    with pytest.raises(BudgetError, match="how='last'"):
        tt.adapt(net, "last", ram="12K").plan.dump()
    with pytest.raises(InputError, match="nothing was learned"):
        tt.adapt(net, "knn").predict(np.zeros((1, 8, 8, 1), np.float32))
    path = str(tmp_path / "plain.npz")
    tt.Trainer(models.build("digits_cnn"), batch=2).save(path)
    with pytest.raises(InputError, match="no adapted network"):
        tt.Learner.restore(path)


def test_a_file_is_not_a_trainers_and_a_wrong_network_is_refused(digits, tmp_path) -> None:
    _, few, _ = digits
    path = str(tmp_path / "it.npz")
    learner(digits, "head").fit(*few, epochs=1).save(path)
    with pytest.raises(InputError, match=r"Learner\.restore"):
        tt.Trainer.restore(path)
    with pytest.raises(InputError, match="does not fit"):
        tt.Learner.restore(path, models.build("lenet5", input_shape=(16, 16, 1)))


def test_the_command_line_shows_the_ways_side_by_side(capsys) -> None:
    assert main(["plan", "digits_cnn", "--adapt", "--batch", "4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [r["way"] for r in rows] == list(WAYS)
    by = {r["way"]: r for r in rows}
    assert by["head"]["ram_bytes"] < by["last"]["ram_bytes"] < by["all"]["ram_bytes"]
    assert by["sparse"]["ram_bytes"] < by["last"]["ram_bytes"]
    assert by["prototypes"]["macs_an_example"] < by["head"]["macs_an_example"]
    assert by["all"]["flash_bytes"] == 0 < by["last"]["flash_bytes"] < by["head"]["flash_bytes"]
    assert by["knn"]["stored_bytes"] == 50 * (4 * 32 + 4) or by["knn"]["stored_bytes"] > 0
    assert main(["plan", "digits_cnn", "--adapt", "--batch", "1", "--ram", "6K"]) == 0
    shown = capsys.readouterr().out
    assert "does not fit" in shown and "prototypes" in shown
    assert main(["plan", "autoencoder", "--adapt"]) == 2
    assert "tells no classes apart" in capsys.readouterr().err
