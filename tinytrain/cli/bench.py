"""`tinytrain bench`: the benchmarks, one by one."""

from __future__ import annotations

import argparse
import importlib
import inspect

from tinytrain.cli.arguments import BENCHES
from tinytrain.cli.output import emit
from tinytrain.errors import InputError


def run(arguments: argparse.Namespace) -> None:
    cases = arguments.case or list(BENCHES)
    for case in cases:
        if case not in BENCHES:
            raise InputError(f"unknown benchmark {case!r}; there are {', '.join(BENCHES)}")
    given = {k: v for k in ("only", "quick", "svg", "nets") if (v := getattr(arguments, k))}
    results = {}
    for case in cases:
        run = importlib.import_module(f"tinytrain.bench.{case}").run
        for option in given:
            if option not in inspect.signature(run).parameters:
                raise InputError(f"bench {case} takes no --{option}; leave it out")
        if not arguments.json:
            print(f"== {case}", flush=True)
        results[case] = run(arguments.data, json=arguments.json, **given)
    if arguments.json:
        emit(arguments, results, "")
