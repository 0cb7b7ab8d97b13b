"""Policies: how a residual is saved in front of its last forward reader, and given back.

A policy is a module with two functions over the lowering `b` and a tape value `v`:

    save(b, v)      emit what has to happen in front of v's last forward reader
    restore(b, v)   emit what brings v back, and return the value that holds it

`POLICIES` maps their names; `keep` is the default.
"""

from tinytrain.stash import (
    bitmap,
    invert,
    keep,
    recompute,
    recompute_each,
    recompute_near,
    spill,
    topk,
)

POLICIES = {
    "keep": keep,
    "bitmap": bitmap,
    "invert": invert,
    "recompute": recompute,
    "recompute_each": recompute_each,
    "recompute_near": recompute_near,
    "topk": topk,
    "spill": spill,
}
