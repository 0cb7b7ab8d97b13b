"""Plans: close to the lower bound, honest about every byte, made from shapes alone."""

from __future__ import annotations

import functools
import tracemalloc
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, nn, optim
from tinytrain.arena import LINE
from tinytrain.lifetime import live_bytes
from tinytrain.plan import ALIGN, KINDS
from tinytrain.report import PEAK_ROWS
from tinytrain.run import new_arena

WORST_RATIO = 1.02  # of the arena over the lower bound, from the issue
SECONDS_A_LAYER = 0.2  # a guard against quadratic planning on any machine, not a measurement


@functools.cache
def planned(name: str, batch: int, optimizer: str | None = None) -> tt.Plan:
    return tt.plan(models.build(name), batch=batch, optimizer=optimizer)


zoo = pytest.mark.parametrize("name", models.names())


# ---------------------------------------------------------------------------- the offsets


@pytest.mark.parametrize("batch", [1, 8, 32])
@zoo
def test_the_arena_is_close_to_the_lower_bound(name, batch):
    plan = planned(name, batch)
    assert plan.lower_bound <= plan.arena_bytes <= WORST_RATIO * plan.lower_bound
    plan.check()


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@zoo
def test_so_it_is_with_optimizer_state(name, optimizer):
    plan = planned(name, 8, optimizer)
    assert plan.arena_bytes <= WORST_RATIO * plan.lower_bound
    plan.check()


@zoo
def test_offsets_are_aligned_and_within_the_arena(name):
    plan = planned(name, 8, "adam")
    ends = [b.offset + b.nbytes for b in plan.buffers]
    assert max(ends) == plan.arena_bytes
    assert all(b.offset >= 0 and b.offset % ALIGN == 0 for b in plan.buffers)


@pytest.mark.parametrize("name", ["resnet8", "vgg6", "ds_cnn"])
@pytest.mark.parametrize("policy", ["keep", "bitmap", "recompute"])
def test_what_fills_whole_lines_of_a_cache_begins_with_one(name, policy):
    plan = tt.plan(models.build(name), batch=32, policy=policy)
    whole = [b for b in plan.buffers if b.nbytes % LINE == 0]
    assert len(whole) > len(plan.buffers) / 2
    assert {(b.offset - plan.base) % LINE for b in whole} == {0}
    address = new_arena(plan.arena_bytes, plan.base).__array_interface__["data"][0]
    assert (address + plan.base) % LINE == 0


@zoo
def test_persistent_buffers_lie_below_the_rest(name):
    plan = planned(name, 8, "momentum")
    top = max(b.offset + b.nbytes for b in plan.buffers if b.persistent)
    assert all(b.offset >= top for b in plan.buffers if not b.persistent)
    assert plan.layout.end == top
    assert plan.persistent_bytes == sum(b.nbytes for b in plan.buffers if b.persistent)


@zoo
def test_no_two_live_buffers_share_a_byte(name):
    """As `check`, by painting bytes step after step."""
    plan = planned(name, 1, "momentum")
    owner = np.full(plan.arena_bytes, -1, np.int32)
    events: dict[int, list[int]] = {}
    for k, b in enumerate(plan.buffers):
        events.setdefault(b.first, []).append(k)
    for step in sorted(events):
        for k in events[step]:
            b = plan.buffers[k]
            held = set(np.unique(owner[b.offset : b.offset + b.nbytes]).tolist()) - {-1, k}
            for other in held:
                assert plan.buffers[other].end <= step, (plan.name(b.owner), other)
            owner[b.offset : b.offset + b.nbytes] = k


def test_check_finds_an_overlap():
    plan = tt.plan(models.build("digits_cnn"), batch=2)
    plan.check()
    a, b = sorted((b for b in plan.buffers if b.nbytes), key=lambda b: b.first)[:2]
    b.offset = a.offset
    with pytest.raises(AssertionError, match="overlap"):
        plan.check()


@pytest.mark.parametrize("name", ["digits_cnn", "ds_cnn", "mobilenetv2"])
def test_the_same_plan_twice_is_identical(name):
    one, two = (tt.plan(models.build(name), batch=4, optimizer="adam") for _ in range(2))
    assert one.program.steps == two.program.steps
    assert [(b.offset, b.nbytes, b.first, b.end) for b in one.buffers] == [
        (b.offset, b.nbytes, b.first, b.end) for b in two.buffers
    ]
    assert (one.arena_bytes, one.lower_bound) == (two.arena_bytes, two.lower_bound)
    assert str(one) == str(two)
    assert one.to_svg() == two.to_svg()


# ---------------------------------------------------------------------------- what is counted


@pytest.mark.parametrize("batch", [1, 32])
@zoo
def test_the_breakdown_sums_to_the_arena(name, batch):
    plan = planned(name, batch)
    table = plan.breakdown()
    assert (
        tuple(table)
        == KINDS
        == (
            "parameters",
            "optimizer",
            "gradients",
            "activations",
            "stash",
            "workspace",
            "io",
            "slack",
        )
    )
    assert sum(table.values()) == plan.arena_bytes
    assert min(table.values()) >= 0
    assert table["slack"] == plan.arena_bytes - plan.lower_bound
    assert plan.lower_bound == max(live_bytes(plan.buffers, len(plan.program.steps)))
    net = models.build(name)
    leaves, specs = plan.program.leaves.items(), plan.program.specs
    constants = sum(specs[v].nbytes for v, leaf in leaves if leaf.kind == "constant")
    held = 4 * sum(p.size for p in net.named_leaves().values())
    assert table["parameters"] == held + constants


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_optimizer_state_is_counted(optimizer, copies):
    net = models.build("lenet5")
    held = planned("lenet5", 8, optimizer).breakdown()["optimizer"]
    assert 0 < held - copies * 4 * net.count_parameters() <= 16  # the rate and Adam's corrections


def test_policies_and_ratios():
    plan = planned("resnet8", 8)
    assert set(plan.policies) == {"keep", "bitmap", "recompute", "invert", "spill"}
    assert plan.policies["keep"] > 0
    assert sum(plan.policies.values()) == plan.policies["keep"]
    assert plan.extra_macs_ratio == 0.0
    assert plan.fits
    assert plan.smallest_ram_bytes < plan.arena_bytes


def test_multiply_accumulates_of_a_dense_net():
    """Forward, weight gradient and, but for the first layer, data gradient: N * in * out each."""
    plan = tt.plan(models.build("mlp"), batch=5)
    assert plan.macs == 5 * (2 * 784 * 128 + 3 * 128 * 10)


def test_a_step_guard_and_clipping_show_their_price():
    net = models.build("lenet5")
    plain, guarded, clipped = (
        tt.plan(net, batch=2, optimizer="momentum", **more)
        for more in ({}, {"guard": "step"}, {"clip_norm": 1.0})
    )
    assert guarded.breakdown()["gradients"] >= 4 * net.count_parameters()
    assert clipped.breakdown()["gradients"] >= 4 * net.count_parameters()
    assert plain.arena_bytes + 2 * net.count_parameters() < guarded.arena_bytes


# ---------------------------------------------------------------------------- the step list


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@zoo
def test_updates_sit_right_behind_their_gradients(name, optimizer):
    """Between a parameter's last reader (its gradient's last step, or the data's gradient) and
    its update stand only other updates."""
    program = planned(name, 8, optimizer).program
    updates = ("sgd", "adam", "nesterov", "decay", "add_scaled")
    checked = 0
    for k, step in enumerate(program.steps):
        checked += step.op.endswith(("_sgd", "_momentum"))  # one step with its gradient
        if step.op not in ("sgd", "adam"):
            continue
        parameter, gradient = step.ins[0], step.ins[1 if step.op == "sgd" else 3]
        gradient = program.root(gradient)  # a 1-D convolution's is a view of the 2-D one's
        reads = {parameter, gradient, program.home.get(gradient, gradient)}
        last = max(
            j
            for j, s in enumerate(program.steps[:k])
            if {program.root(v) for v in s.reads()} & reads or gradient in s.writes()
        )
        between = [s.op for s in program.steps[last + 1 : k]]
        assert all(op in updates for op in between), (step, between)
        checked += 1
    net = models.build(name)
    assert checked == sum(1 for _ in net.parameters())


def test_momentum_needs_no_gradient_of_the_weights():
    plan = planned("mlp", 8, "momentum")
    program = plan.program
    weights = {p.size * 4 for p in models.build("mlp").parameters()}
    gradients = {
        b.nbytes for b in plan.buffers if program.kinds[b.owner] == "gradient" and not b.persistent
    }
    assert 784 * 128 * 4 in weights
    assert 784 * 128 * 4 not in gradients


def test_nothing_persistent_is_written_before_the_guard():
    for name in ("resnet8", "ds_cnn", "digits_cnn"):
        program = planned(name, 8, "momentum").program
        (position, flags), *more = program.marks
        assert not more
        assert {what for _, what in flags} == {"the input", "the network's output", "the loss"}
        early = [s.op for s in program.steps[:position] if set(s.writes()) & set(program.home)]
        assert not early


# ---------------------------------------------------------------------------- shapes alone


@zoo
def test_a_plan_allocates_no_tensor(name):
    net = models.build(name)
    tracemalloc.start()
    try:
        plan = tt.plan(net, batch=32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(p._data is None for p in net.named_leaves().values())
    assert peak < 8 * 1024 * 1024, f"{peak:,} bytes for {plan.arena_bytes:,} planned"


def test_a_network_larger_than_the_machine_is_planned():
    with nn.seeded(0):
        net = nn.Sequential(nn.Linear(10**6, 10**6), nn.ReLU(), nn.Linear(10**6, 10))
    plan = tt.plan(net, batch=2, input_shape=(10**6,))
    assert 4 * 10**12 < plan.arena_bytes < 5 * 10**12  # the weights; their gradient is never made
    with pytest.raises(tt.BudgetError):
        tt.plan(net, batch=2, input_shape=(10**6,), ram="16G")


def test_a_deep_net_plans_in_reasonable_time():
    """512 layers; the count of seconds is generous and only catches what grows too fast."""
    import time

    layers = []
    for _ in range(512):
        layers += [nn.Linear(16, 16), nn.ReLU()]
    begin = time.process_time()
    plan = tt.plan(nn.Sequential(*layers, nn.Linear(16, 4)), batch=8, input_shape=(16,))
    assert time.process_time() - begin < SECONDS_A_LAYER * 512
    assert plan.arena_bytes <= WORST_RATIO * plan.lower_bound


# ---------------------------------------------------------------------------- what does not fit


def test_a_budget_error_says_what_is_missing():
    need = planned("lenet5", 8).arena_bytes
    with pytest.raises(tt.BudgetError) as caught:
        tt.plan(models.build("lenet5"), batch=8, ram=need - 1000, policy="keep", microbatch=8)
    error = caught.value
    assert error.missing == 1000
    assert error.smallest == need
    assert error.exit_status == 3
    assert isinstance(error, MemoryError)
    text = str(error)
    for part in ("1,000", f"{need:,}", f"{need - 1000:,}", "alive at the peak: ", "weight"):
        assert part in text, text
    assert "\n" not in text


@pytest.mark.parametrize("policy", ["keep", "auto"])
@pytest.mark.parametrize("name", ["digits_cnn", "resnet8"])
def test_the_smallest_budget_does(name, policy):
    def plan_within(ram):
        return tt.plan(models.build(name), batch=2, ram=ram, policy=policy)

    with pytest.raises(tt.BudgetError) as caught:
        plan_within("1K")
    smallest = caught.value.smallest
    plan = plan_within(smallest)
    assert plan.fits
    assert plan.ram == smallest
    if policy == "keep":  # the solver's is the smallest it found, and no bound
        with pytest.raises(tt.BudgetError):
            plan_within(smallest - 1)


def test_a_budget_below_the_parameters_says_so():
    nbytes = 4 * models.build("vgg6").count_parameters()
    for batch in (1, 8):
        alone = f"parameters and optimizer state alone are {nbytes + 4:,} bytes"  # and the rate
        with pytest.raises(tt.BudgetError, match=alone):
            tt.plan(models.build("vgg6"), batch=batch, ram="64K")


def test_the_advice_of_a_smaller_batch_is_not_given_where_it_cannot_help():
    with pytest.raises(tt.BudgetError) as caught:
        tt.plan(models.build("vgg6"), batch=1, ram="64K")
    assert "smaller batch" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("64K", 65536), ("1.5M", 1572864), (" 2 k ", 2048), ("1G", 2**30), ("4096", 4096), (7, 7)],
)
def test_sizes_are_read_as_people_write_them(text, nbytes):
    net = nn.Sequential(nn.Linear(1, 1))
    if nbytes < 1024:
        with pytest.raises(tt.BudgetError, match=f"ram is {nbytes}"):
            tt.plan(net, batch=1, input_shape=(1,), ram=text)
    else:
        assert tt.plan(net, loss="mse", batch=1, input_shape=(1,), ram=text).ram == nbytes


@pytest.mark.parametrize("ram", ["", "K", "-1", "1e3", "64Q", "64 K B", 0, -5, 1.5, True, [1]])
def test_sizes_that_are_none_are_refused(ram):
    with pytest.raises(tt.InputError, match="ram is"):
        tt.plan(models.build("digits_cnn"), ram=ram)


# ---------------------------------------------------------------------------- control flow


def reads(kind: str):
    """A module whose forward reads a value, and the line where it does."""

    class Reads(nn.Module):
        input_shape = (4,)

        def __init__(self):
            self.dense = nn.Linear(4, 3)

        def forward(self, x):
            h = self.dense(x)
            if kind == "bool" and h.sum():
                return h
            if kind == "float" and float(h.mean()) > 0:
                return h
            if kind == "int" and int(h.sum()) == 3:
                return h
            if kind == "item" and h.max().item() > 0:
                return h
            if kind == "array" and np.asarray(h).any():
                return h
            if kind == "data" and h.data.any():
                return h
            if kind == "numpy" and h.numpy().any():
                return h
            if kind == "parameter" and self.dense.weight.data.any():
                return h
            return h

    return Reads()


@pytest.mark.parametrize(
    "kind", ["bool", "float", "int", "item", "array", "data", "numpy", "parameter"]
)
def test_reading_a_value_names_file_and_line(kind):
    net = reads(kind)
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    line = next(k for k, text in enumerate(lines, 1) if f'if kind == "{kind}"' in text)
    with pytest.raises(tt.InputError) as caught:
        tt.plan(net)
    assert f"{__file__}:{line}:" in str(caught.value)
    assert net(np.ones((2, 4), np.float32)).shape == (2, 3), "eagerly the same code runs"


def test_two_recordings_that_differ_are_refused():
    class Counts(nn.Module):
        input_shape = (4,)
        calls = 0

        def __init__(self):
            self.dense = nn.Linear(4, 3)

        def forward(self, x):
            self.calls += 1
            return self.dense(x) * float(self.calls)

    with pytest.raises(tt.InputError, match="two recordings"):
        tt.plan(Counts())


def test_a_random_constant_is_found():
    rng = np.random.default_rng(0)

    class Noise(nn.Module):
        input_shape = (4,)

        def __init__(self):
            self.dense = nn.Linear(4, 3)

        def forward(self, x):
            return self.dense(x + tt.Tensor(rng.standard_normal(4).astype(np.float32)))

    with pytest.raises(tt.InputError, match="two recordings"):
        tt.plan(Noise())


def test_recording_leaves_the_mode_and_eager_values_alone():
    net = models.build("ds_cnn", input_shape=(8, 6, 1), channels=4).eval()
    x = np.ones((2, 8, 6, 1), np.float32)
    before = net(x).data
    tt.plan(net)
    assert not any(m.training for m in net.modules())
    np.testing.assert_array_equal(net(x).data, before)


# ---------------------------------------------------------------------------- looking at it


@zoo
def test_the_picture_is_valid_xml_within_its_frame(name, tmp_path):
    plan = planned(name, 8, "momentum")
    path = tmp_path / "arena.svg"
    text = plan.to_svg(str(path))
    assert path.read_text(encoding="utf-8") == text
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    boxes = [r for r in root.iter() if r.tag.endswith("rect")]
    assert len(boxes) >= len([b for b in plan.buffers if b.nbytes])
    for r in boxes:
        x, y = float(r.attrib.get("x", 0)), float(r.attrib.get("y", 0))
        assert x >= 0
        assert y >= -0.01
        assert x + float(r.attrib["width"]) <= width + 0.01
        assert y + float(r.attrib["height"]) <= height + 0.01
    titles = [t.text for t in root.iter() if t.tag.endswith("title")]
    assert any("bytes, parameters" in t for t in titles)


def test_names_are_escaped_in_the_picture():
    class Odd(nn.Module):
        input_shape = (4,)

        def __init__(self):
            setattr(self, "a<b>&\"c'", nn.Linear(4, 3))

        def forward(self, x):
            return getattr(self, "a<b>&\"c'")(x)

    root = ET.fromstring(tt.plan(Odd(), batch=2, ram="64K").to_svg())
    assert any("a<b>&\"c'" in (t.text or "") for t in root.iter())


@zoo
def test_the_table_lines_up(name):
    plan = tt.plan(models.build(name), batch=8, ram="1G")
    blocks = str(plan).split("\n\n")
    kinds = blocks[0].splitlines()
    assert kinds[0].split() == ["kind", "of", "buffer", "bytes"]
    assert len({len(line) for line in kinds}) == 1, "numbers end in one column"
    rows = {line[:14].strip(): int(line[14:].replace(",", "")) for line in kinds[2:]}
    assert {k: rows[k] for k in KINDS} == plan.breakdown()
    assert rows["arena"] == plan.arena_bytes
    assert rows["lower bound"] == plan.lower_bound
    assert rows["ram"] - rows["arena"] == rows["left over"]
    alive = blocks[2].splitlines()
    shown = alive[2 : 2 + PEAK_ROWS]
    assert len({len(line) for line in shown}) == 1
    assert max(map(len, str(plan).splitlines())) <= 120


def test_the_optimizer_argument_may_be_an_object():
    by_name = tt.plan(models.build("digits_cnn"), optimizer="adam", batch=2)
    by_object = tt.plan(models.build("digits_cnn"), optimizer=optim.Adam(), batch=2)
    assert by_name.arena_bytes == by_object.arena_bytes
