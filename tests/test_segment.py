"""The first layers part by part: slices of the batch, tiles of rows, and what may not be cut."""

from __future__ import annotations

import numpy as np
import pytest
from test_budget import BACKENDS, run_poisoned

from tinytrain import models, nn, optim
from tinytrain.freeze import Recorder, defaults, sample_specs
from tinytrain.lower import Decisions, lower
from tinytrain.nn.init import uniform
from tinytrain.plan import make_plan
from tinytrain.segment import Segment, cut_up, may_be_cut

NETS = {
    "vgg6": {"input_shape": (16, 16, 3)},
    "resnet8": {"norm": "group", "input_shape": (8, 8, 3)},
    "mobilenetv2": {"norm": "group", "input_shape": (16, 16, 3)},
    "lenet5": {"input_shape": (16, 16, 1)},
}


class Strided(nn.Module):
    """Windows that overlap, leave gaps and reach into padding on both sides."""

    input_shape = (19, 9, 2)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 3, (5, 3), stride=2, padding=((1, 2), (1, 0))),
            nn.ReLU6(),
            nn.Conv2d(3, 4, 3, padding=2, dilation=2),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
            nn.AvgPool2d(2, stride=1),
        )
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean(axis=(1, 2)))


def frozen(net, batch=2):
    loss, _ = defaults(net, None, None)
    return Recorder(net, sample_specs(net), loss)(batch)


def ends(tape, along):
    return [n.outs[0] for n in tape.nodes if may_be_cut(tape, along, n.outs[0])]


def near(step, program, plain, backend):
    """Everything persistent after a step, as close as another order of sums allows."""
    got, want = (run_poisoned(step, p, backend) for p in (program, plain))
    assert got.keys() == want.keys()
    for name in want:
        a, b = (np.frombuffer(side[name], np.float32) for side in (got, want))
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", NETS)
def test_slices_of_the_batch_train_as_the_whole(name, momentum, backend):
    step, optimizer = frozen(models.build(name, **NETS[name], seed=0), 5), optim.SGD(0.1, momentum)
    found = ends(step.tape, "samples")
    assert len(found) >= 5
    plain = lower(step.tape, optimizer)
    for end, parts in ((found[len(found) // 2], 2), (found[-1], 5)):
        d = Decisions(segment=Segment("samples", end, parts))
        near(step, lower(step.tape, optimizer, d), plain, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [Strided, lambda: models.build("vgg6", input_shape=(16, 16, 3))])
def test_tiles_of_rows_train_as_the_whole(make, backend):
    net = make()
    for k, p in enumerate(net.parameters()):
        if isinstance(net, Strided):
            p.data = np.random.default_rng(k).normal(size=p.shape).astype(np.float32) / 4
    step, optimizer = frozen(net), optim.SGD(0.1, momentum=0.9)
    found = ends(step.tape, "rows")
    assert len(found) >= 5
    plain = lower(step.tape, optimizer)
    for end in found:
        for parts in (2, 3, 100):
            d = Decisions(segment=Segment("rows", end, parts))
            near(step, lower(step.tape, optimizer, d), plain, backend)


def test_a_segment_in_parts_needs_fewer_bytes():
    step = frozen(models.build("vgg6"), 8)
    keep = make_plan(lower(step.tape, optim.SGD(0.1)), 8)
    end = next(v for v in ends(step.tape, "samples") if step.tape.specs[v].shape[1:3] == (8, 8))
    cut = lower(step.tape, optim.SGD(0.1), Decisions(segment=Segment("samples", end, 8)))
    assert make_plan(cut, 8).arena_bytes < 0.65 * keep.arena_bytes


def test_a_frozen_segment_in_parts_costs_no_work():
    net = models.build("resnet8")
    for p in net.parameters():
        p.requires_grad = False
    head = list(net.modules())[-1]
    head.weight.requires_grad = head.bias.requires_grad = True
    step = frozen(net, 8)
    end = ends(step.tape, "samples")[-1]
    keep = lower(step.tape, optim.SGD(0.1))
    cut = lower(step.tape, optim.SGD(0.1), Decisions(segment=Segment("samples", end, 8)))
    plan, whole = make_plan(cut, 8), make_plan(keep, 8)
    assert plan.macs == whole.macs
    assert plan.arena_bytes - plan.persistent_bytes < 0.4 * (
        whole.arena_bytes - whole.persistent_bytes
    )
    near(step, cut, keep, "numpy")


def test_what_looks_across_samples_or_rows_is_not_cut():
    batch = frozen(models.build("resnet8"), 4).tape
    norms = [n.outs[0] for n in batch.nodes if n.op == "batch_norm"]
    assert norms and not any(may_be_cut(batch, "samples", v) for v in norms)
    group = frozen(models.build("resnet8", norm="group"), 4).tape
    norms = [n.outs[0] for n in group.nodes if n.op == "group_norm"]
    assert any(may_be_cut(group, "samples", v) for v in norms)
    assert not any(may_be_cut(group, "rows", v) for v in norms)
    drops = frozen(models.build("ds_cnn", norm="group"), 4).tape
    behind = [n.outs[0] for n in drops.nodes if n.op == "dropout"]
    assert behind and not any(may_be_cut(drops, "samples", v) for v in behind)


class Scaled(nn.Module):
    """Its weights are made of parameters alone, anew in each step."""

    input_shape = (4,)

    def __init__(self):
        super().__init__()
        with nn.seeded(0):
            self.direction, self.scale = (nn.Parameter((4, 3), uniform(1.0)) for _ in "ab")

    def forward(self, x):
        return (x @ (self.direction * self.scale)).relu()


def test_what_no_sample_goes_into_is_not_cut():
    """Its first axis is no batch: parts of it would each be the whole."""
    tape = frozen(Scaled(), 4).tape
    made = [n.outs[0] for n in tape.nodes if n.op == "mul"]
    assert made and not any(may_be_cut(tape, "samples", v) for v in made)


def test_every_part_is_recomputed():
    step = frozen(models.build("vgg6", input_shape=(16, 16, 3)), 4)
    end = ends(step.tape, "samples")[6]
    tape, inside = cut_up(step.tape, Segment("samples", end, 4))
    assert [n.op for n in tape.nodes].count("slice") == 4
    made = {o for n in tape.nodes for o in n.outs}
    assert set(inside) <= made
    program = lower(step.tape, optim.SGD(0.1), Decisions(segment=Segment("samples", end, 4)))
    assert {program.stands_for.get(v, v) for s in program.steps for v in s.reads()} & set(inside)
