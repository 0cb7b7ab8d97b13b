"""The list for `bench/mutations.py`: each fault is one change of a line, and names the tests that
must notice it. A fault that changes no result anywhere is none and does not belong here.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` occurs once in the file; `tests` are arguments of pytest."""

    file: str
    old: str
    new: str
    tests: str


def _gradient(op: str, old: str, new: str) -> Mutant:
    """Of the reference kernels; the case list's gradient check of an op."""
    return Mutant("kernels/numpy_.py", old, new, f"tests/test_cases.py -k 'test_gradient[{op}'")


_NUMPY = "kernels/numpy_.py"
_CASES = "tests/test_cases.py -k "

KERNELS = (
    _gradient("relu]", "g, y > 0, out", "g, y >= 0, out"),
    _gradient("relu6]", "g, (y > 0) & (y < 6), out", "g, y > 0, out"),
    _gradient("tanh]", "1 - y * y, out=dx", "1 - y, out=dx"),
    _gradient("sigmoid]", "g, y * (1 - y)", "g, y * y"),
    _gradient("div]", "np.divide(-g * y, b", "np.divide(g * y, b"),
    _gradient("gelu]", "(1 + 3 * k * x * x)", "(1 + k * x * x)"),
    _gradient("silu]", "s * (1 + x * (1 - s))", "s * (1 + x * s)"),
    _gradient("softmax]", "g - (g * y).sum(", "g - g.sum("),
    _gradient("log_softmax]", "np.subtract(g, np.exp(y) * g", "np.subtract(g, y * g"),
    _gradient("max]", "== flat.argmax(", "== flat.argmin("),
    _gradient("conv2d", "dw[..., cout] += product", "dw[..., cout] = product"),
    _gradient("conv2d", "tap[...] = w[i, j, :, cout].T", "tap[...] = w[0, 0, :, cout].T"),
    _gradient("conv2d", "lo = max(0, -(shift // stride))", "lo = max(0, -shift // stride)"),
    _gradient("avg_pool2d", "+= g[(slice(None), *out)] * factor", "+= g[(slice(None), *out)]"),
    _gradient("max_pool2d", "+= g[(slice(None), *out)] * hit", "= g[(slice(None), *out)] * hit"),
    _gradient("batch_norm]", "(g - dbeta / count - (x", "(g - (x"),
    _gradient("group_norm]", "(d - a - xhat * b)", "(d - a)"),
    _gradient(
        "cross_entropy",
        "labels[..., None], 1 - smooth + smooth / classes",
        "labels[..., None], 1 - smooth",
    ),
    _gradient("mse]", "np.multiply(2 * d, share", "np.multiply(d, share"),
    _gradient(
        "embedding]",
        "np.add.at(dtable, indices.reshape(-1), g.reshape(-1, g.shape[-1]))",
        "dtable[indices.reshape(-1)] += g.reshape(-1, g.shape[-1])",
    ),
    Mutant(
        _NUMPY,
        "_bits(x) != 0  #",
        "x.reshape(-1) != 0  #",
        "tests/test_bitmap.py -k only_positive_zero",
    ),
    Mutant(_NUMPY, "kept = size > least", "kept = size >= least", "tests/test_topk.py -k largest"),
    Mutant(
        _NUMPY, "t(1 - b2) * g * g", "t(1 - b2) * g", "tests/test_trainer.py -k updates_equal_the"
    ),
    Mutant(
        _NUMPY,
        "lr * (g + v.dtype.type(momentum) * v)",
        "lr * (g + v)",
        "tests/test_trainer.py -k updates_equal_the",
    ),
    Mutant(
        _NUMPY,
        "np.minimum(t(1), t(max_norm)",
        "np.maximum(t(1), t(max_norm)",
        "tests/test_trainer.py -k updates_equal_the",
    ),
    Mutant(
        _NUMPY, "if not np.isfinite(x).all())", "if np.isnan(x).any())", f"{_CASES}check_finite"
    ),
    Mutant(
        _NUMPY,
        "(t(correction) * new - old)",
        "(new - old)",
        "tests/test_nn.py -k batch_norm_is_pytorchs",
    ),
    Mutant(
        _NUMPY,
        "x.dtype.type(1 / (1 - p)), out",
        "x.dtype.type(1), out",
        "tests/test_nn.py -k dropout_scales",
    ),
    Mutant(_NUMPY, "np.rint(x * step)", "np.floor(x * step)", f"{_CASES}'agree and snap'"),
    Mutant(_NUMPY, "if n > most)", "if n >= most)", "tests/test_bitmap.py -k count_above"),
)

C_KERNELS = (
    Mutant("kernels/c/tt_update.c", "c2 * d * d;", "c2 * d;", f"{_CASES}'updates and adam'"),
    Mutant(
        "kernels/c/tt_update.c",
        "factor > 1.0f ? 1.0f : factor",
        "factor",
        f"{_CASES}'updates and clip'",
    ),
    Mutant(
        "kernels/c/tt_update.c",
        "if (bad) *flag = (uint32_t)k;",
        "if (bad) *flag = 1u;",
        f"{_CASES}check_finite",
    ),
    Mutant(
        "kernels/c/tt_update.c",
        "> (uint32_t)g[k])",
        ">= (uint32_t)g[k])",
        "tests/test_bitmap.py -k count_above",
    ),
    Mutant(
        "kernels/c/tt_bitmap.c",
        "if (count < capacity) values[count]",
        "if (count <= capacity) values[count]",
        "tests/test_bitmap.py -k nothing_beyond",
    ),
    Mutant(
        "kernels/c/tt_norm.c",
        "s = load(dbeta + k, cut, n) / count;",
        "s = load(dbeta + k, cut, n);",
        "tests/test_c.py -k norms_have",
    ),
    Mutant(
        "kernels/c/tt_pool.c",
        "~(x <= best)",
        "~(x < best)",
        "tests/test_c.py -k pools_have",
    ),
    Mutant(
        "kernels/c/tt_conv.c",
        "s.lo = (-first + dilation - 1) / dilation",
        "s.lo = -first / dilation",
        "tests/test_c.py -k convolution_has",
    ),
)

PORT = (
    Mutant(
        "ports/c99/tt.c",
        "value >= port[3]",
        "value > port[3]",
        "tests/test_port_c99.py -k verbs_refuse",
    ),
    Mutant(
        "ports/c99/tt.c",
        " || found != crc) return TT_E_STATE",
        ") return TT_E_STATE",
        "tests/test_port_c99.py -k verbs_refuse",
    ),
    Mutant(
        "ports/c99/tt.c",
        "m->slice = m->begun = 0u;\n    if",
        "m->slice = 0u;\n    if",
        "tests/test_port_c99.py -k host_trains",
    ),
    Mutant(
        "ports/c99/tt.c",
        "store->sums[w[3]] != sum",
        "store->sums[0] != sum",
        "tests/test_port_c99.py -k block_device",
    ),
    Mutant(
        "ports/c99/tt.c",
        " || words[WORDS] != m->net->count) return",
        ") return",
        "tests/test_port_c99.py -k table_that",
    ),
    Mutant(
        "ports/c99/tt_slots.c",
        "(last.slot + k) % count",
        "(last.slot + k - 1u) % count",
        "tests/test_faults.py -k flash",
    ),
    Mutant(
        "ports/c99/tt_slots.c",
        " || found != crc) return BROKEN",
        ") return BROKEN",
        "tests/test_faults.py -k flash",
    ),
    Mutant(
        "ports/c99/tt_slots.c", "head[ERASES] + 1u", "head[ERASES]", "tests/test_faults.py -k flash"
    ),
)

PLANNER = (
    Mutant(
        "tinytrain/lifetime.py",
        "buffer.end = max(buffer.end, k + 1)",
        "buffer.end = max(buffer.end, k)",
        "tests/test_cases.py -k 'planned_gradient and mul'",
    ),
    Mutant(
        "tinytrain/lifetime.py",
        "        touch(v, total - 1)",
        "        touch(v, 0)",
        "tests/test_trainer.py -k norms_dropout_and_adam",
    ),
    Mutant(
        "tinytrain/inplace.py",
        "self.end[root] == k",
        "self.end[root] >= k",
        "tests/test_trainer.py -k bit_equal_to_fresh_ones_for_every_model",
    ),
    Mutant(
        "tinytrain/inplace.py",
        "                and root not in self.pinned\n",
        "",
        "tests/test_cases.py -k 'planned_forward and add'",
    ),
    Mutant(
        "tinytrain/plan.py",
        "    base = -(-top // ALIGN) * ALIGN",
        "    base = top // ALIGN * ALIGN",
        "tests/test_plan.py -k share_a_byte",
    ),
    Mutant(
        "tinytrain/plan.py",
        "apart = a.end <= b.first or",
        "apart = True or",
        "tests/test_plan.py -k finds_an_overlap",
    ),
    Mutant(
        "tinytrain/plan.py",
        "        b.offset = other.offset\n",
        "        b.offset = 0\n",
        "tests/test_slices.py",
    ),
    Mutant(
        "tinytrain/arena.py",
        "offset[u] + size[u]) for u in near(v)",
        "offset[u] + size[u] - 1) for u in near(v)",
        "tests/test_arena.py",
    ),
    Mutant(
        "tinytrain/arena.py",
        "last = [bisect_left(starts, b) for",
        "last = [bisect_left(starts, b) - 1 for",
        "tests/test_arena.py",
    ),
    Mutant(
        "tinytrain/segment.py",
        "return span[0] * stride - top,",
        "return span[0] * stride,",
        "tests/test_segment.py -k tiles",
    ),
    Mutant(
        "tinytrain/segment.py",
        "nodes or len(data) != 1 or read",
        "nodes or read",
        "tests/test_segment.py",
    ),
    Mutant("tinytrain/rewrite.py", " or uses[y] != 1:", ":", "tests/test_lean.py -k gate"),
    Mutant(
        "tinytrain/ops/shape.py",
        "vjp=(_transpose_vjp,), integers",
        "vjp=(_transpose_vjp,), inplace=((0, 0),), integers",
        "tests/test_cases.py -k square",
    ),
)

LOWERING = (
    Mutant(
        "tinytrain/lower.py",
        "if waiting[v] == 0 and",
        "if waiting[v] <= 1 and",
        "tests/test_trainer.py -k shared",
    ),
    Mutant(
        "tinytrain/lower.py",
        'b.mark(b.check(grads, "a gradient"))',
        "pass",
        "tests/test_trainer.py -k bad_gradient_changes",
    ),
    Mutant(
        "tinytrain/lower.py",
        'flags += self.check([self.tape.loss], "the loss")',
        "pass",
        "tests/test_trainer.py -k exploding",
    ),
    Mutant(
        "tinytrain/lower.py",
        "            if k not in self.late:\n",
        "            if True:\n",
        "tests/test_trainer.py -k running_statistics_change",
    ),
    Mutant(
        "tinytrain/lower.py",
        "uses[value] == 1 and leaf not in read_before",
        "uses[value] == 1",
        "tests/test_trainer.py -k state",
    ),
    Mutant(
        "tinytrain/lower.py",
        'b.seed = b.hyper("share")',
        "b.seed = None",
        "tests/test_budget.py -k slices_train",
    ),
    Mutant(
        "tinytrain/lower.py",
        "if y in self.masks and y not in self.memo:",
        "if y in self.masks and False:",
        "tests/test_bitmap.py -k gate_with",
    ),
    Mutant(
        "tinytrain/stash/bitmap.py",
        "return math.ceil(size",
        "return math.floor(size",
        "tests/test_bitmap.py -k room",
    ),
    Mutant(
        "tinytrain/stash/spill.py",
        "nbytes < SMALLEST",
        "nbytes > SMALLEST",
        "tests/test_spill.py -k 'bits or keep'",
    ),
    Mutant(
        "tinytrain/stash/recompute_each.py",
        "    b.passes(v)\n",
        "",
        "tests/test_budget.py -k each_runs",
    ),
    Mutant(
        "tinytrain/stash/topk.py",
        "math.ceil(size * share)",
        "math.floor(size * share)",
        "tests/test_topk.py -k bytes",
    ),
    Mutant(
        "tinytrain/spillfile.py",
        "lane.turn.wait_for(lambda: self.done)",
        "pass",
        "tests/test_spill.py",
    ),
    Mutant(
        "tinytrain/spillfile.py",
        "if zlib.crc32(self.bytes) != self.source.sum:",
        "if False:",
        "tests/test_spill.py",
    ),
)

TRAINING = (
    Mutant(
        "tinytrain/optim.py",
        "done = min(step / self.steps, 1.0)",
        "done = step / self.steps",
        "tests/test_trainer.py -k schedules",
    ),
    Mutant(
        "tinytrain/optim.py",
        "min(1.0, (step + 1) / self.steps)",
        "min(1.0, step / self.steps)",
        "tests/test_trainer.py -k schedules",
    ),
    Mutant(
        "tinytrain/optim.py",
        "1 - beta ** (step + 1)",
        "1 - beta ** (step + 2)",
        "tests/test_trainer.py -k updates_equal_the",
    ),
    Mutant(
        "tinytrain/trainer.py",
        "self.steps & 0xFFFFFFFF, first",
        "self.steps & 0xFFFFFFFF, 0",
        "tests/test_budget.py -k drop_out",
    ),
    Mutant(
        "tinytrain/trainer.py",
        "self.steps & 0xFFFFFFFF, first",
        "0, first",
        "tests/test_reproducible.py",
    ),
    Mutant(
        "tinytrain/fitting.py",
        "t.epoch, t.within = t.epoch + 1, 0",
        "t.epoch = t.epoch + 1",
        "tests/test_checkpoint.py -k 'interrupted or twice'",
    ),
    Mutant(
        "tinytrain/trainer.py",
        'if leaf.kind in ("parameter", "state", "optimizer")\n',
        'if leaf.kind in ("parameter", "optimizer")\n',
        "tests/test_checkpoint.py",
    ),
    Mutant(
        "tinytrain/recover.py",
        "lost = not all(np.isfinite(view).all()",
        "lost = not any(np.isfinite(view).all()",
        "tests/test_trainer.py -k single_spoiled",
    ),
    Mutant(
        "tinytrain/durable.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/test_faults.py -k synced",
    ),
    Mutant(
        "tinytrain/durable.py", "        _sync_folder(path)\n", "", "tests/test_faults.py -k synced"
    ),
    Mutant(
        "tinytrain/durable.py",
        "        kept = keep and _second_name(path, spare)\n        os.replace(aside, path)",
        "        os.replace(aside, path)\n        kept = keep and _second_name(path, spare)",
        "tests/test_faults.py -k 'told or ends'",
    ),
    Mutant(
        "tinytrain/checkpoint.py",
        "if names is None and {",
        "if False and {",
        "tests/test_faults.py -k hides",
    ),
    Mutant(
        "tinytrain/checkpoint.py",
        "keep=_is_whole(path)",
        "keep=True",
        "tests/test_faults.py -k told",
    ),
    Mutant(
        "tinytrain/data/order.py",
        "_permutation(n, seed, epoch), batch",
        "_permutation(n, seed, 0), batch",
        "tests/test_data.py -k 'order or every_sample'",
    ),
    Mutant(
        "tinytrain/data/idx.py",
        "    at_end(stream, where)\n",
        "",
        "tests/test_data.py -k 'idx or gzip'",
    ),
    Mutant(
        "tinytrain/data/idx.py",
        "nbytes > size * DEFLATE_LIMIT if zipped else",
        "False if zipped else",
        "tests/test_data.py -k lies",
    ),
    Mutant(
        "tinytrain/data/npz.py",
        "    if dtype.hasobject:\n",
        "    if False:\n",
        "tests/test_data.py tests/test_checkpoint.py -k 'bad_npz or pickle'",
    ),
)

MUTANTS = (*KERNELS, *C_KERNELS, *PORT, *PLANNER, *LOWERING, *TRAINING)
