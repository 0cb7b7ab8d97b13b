"""Plans as files: JSON with all that an executor needs, nothing of the Python that made it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from typing import Any

from tinytrain import durable
from tinytrain.errors import InputError
from tinytrain.lifetime import Buffer
from tinytrain.lower import Decisions
from tinytrain.op import OPS
from tinytrain.plan import Plan
from tinytrain.segment import Segment
from tinytrain.spec import Spec
from tinytrain.steps import Program, Step
from tinytrain.tape import Leaf, Tape

FORMAT = 2  # 2: decisions, and which values are copies
PLAIN = (
    "microbatch",
    "extra_macs_ratio",
    "arena_bytes",
    "lower_bound",
    "persistent_bytes",
    "batch",
    "ram",
    "policies",
)


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    program = plan.program
    return {
        "format": FORMAT,
        **{name: getattr(plan, name) for name in PLAIN},
        "specs": [[list(s.shape), s.dtype] for s in program.specs],
        "kinds": program.kinds,
        "leaves": [[v, x.kind, x.name, x.trainable] for v, x in program.leaves.items()],
        "steps": [[s.op, s.outs, s.ins, s.attrs, s.work, s.acc] for s in program.steps],
        "views": list(program.views.items()),
        "home": list(program.home.items()),
        "marks": program.marks,
        "body": program.body,
        "kept": program.kept,
        "stands_for": list(program.stands_for.items()),
        "inverses": program.inverses,
        "orders": list(program.orders.items()),
        "recorded": len(program.tape.specs),
        "outputs": program.tape.outputs,
        "loss": program.tape.loss,
        "decisions": _plain(plan.decisions),
        "guaranteed": None if plan.guaranteed is None else _plain(plan.guaranteed),
        "buffers": [asdict(b) for b in plan.buffers],
        "buffer_of": list(plan.buffer_of.items()),
        "slots": [asdict(s) for s in plan.slots],
    }


def _plain(decisions: Decisions) -> dict[str, Any]:
    """Each field as JSON has it: pairs, for its keys would be text, or a sorted list."""
    plain: dict[str, Any] = {}
    for f in fields(decisions):
        value = getattr(decisions, f.name)
        if isinstance(value, Segment):
            value = asdict(value)
        elif isinstance(value, dict):
            value = list(value.items())
        plain[f.name] = sorted(value) if isinstance(value, frozenset) else value
    return plain


def _decisions(data: dict[str, Any]) -> Decisions:
    """The decisions that `_plain` wrote."""
    empty, given = Decisions(), dict(data)
    segment = given.pop("segment")
    held = {name: type(getattr(empty, name))(value) for name, value in given.items()}
    return Decisions(**held, segment=None if segment is None else Segment(**segment))


def from_dict(data: dict[str, Any]) -> Plan:
    """The plan that `to_dict` described; InputError if it is of another format."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"not a plan of format {FORMAT}; save it again")
    try:
        return _plan(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"not a whole plan ({error!r}); save it again") from error


def _plan(data: dict[str, Any]) -> Plan:
    specs = [Spec(tuple(shape), dtype) for shape, dtype in data["specs"]]
    tape = Tape(specs[: data["recorded"]], outputs=tuple(data["outputs"]), loss=data["loss"])
    program = Program(
        tape,
        specs,
        data["kinds"],
        {v: Leaf(kind, name, trainable) for v, kind, name, trainable in data["leaves"]},
        [_step(*row) for row in data["steps"]],
        dict(data["views"]),
        dict(data["home"]),
        [(at, [(v, what) for v, what in flags]) for at, flags in data["marks"]],
        kept=data["kept"],
        body=None if data["body"] is None else tuple(data["body"]),
        orders=dict(data["orders"]),
        stands_for=dict(data["stands_for"]),
        inverses=data["inverses"],
    )
    plain = {name: data[name] for name in PLAIN}
    slots = [_buffer(b) for b in data.get("slots", ())]
    buffers = [_buffer(b) for b in data["buffers"]]
    plan = Plan(program, buffers, dict(data["buffer_of"]), slots=slots, **plain)
    plan.decisions = _decisions(data["decisions"])
    plan.guaranteed = None if data["guaranteed"] is None else _decisions(data["guaranteed"])
    return plan


def _buffer(b: dict[str, Any]) -> Buffer:
    return Buffer(**{**b, "values": [(first, v) for first, v in b["values"]]})


def _step(op: str, outs, ins, attrs, work, acc) -> Step:
    if op not in OPS:
        raise InputError(f"the plan has an op {op!r} that this version lacks")
    plain = {name: _tuples(value) for name, value in attrs.items()}
    return Step(op, tuple(outs), tuple(ins), plain, tuple(work), acc)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def save(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write the plan, whole or not at all; InputError if it cannot be."""
    text = json.dumps(to_dict(plan)).encode()
    durable.write(os.fspath(path), lambda file: file.write(text), keep=False)


def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan; InputError names the file if it is not a whole one."""
    try:
        with open(path, encoding="utf-8") as file:
            return from_dict(json.load(file))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: {error}") from error
