"""The verbs that let several machines share a store."""

import argparse

from rich.console import Console
from rich.markup import escape

Args = argparse.Namespace


def merge(args: Args) -> int:
    """Add other stores to one; says how much of it was new."""
    from weighin.results.merge import merge as join

    target = args.into or args.store
    added = join(args.stores, target)
    count = f"{len(args.stores)} store{'s' if len(args.stores) != 1 else ''}"
    Console().print(
        f"{count}: {added.runs} runs, {added.evaluations} evaluations and {added.samples} samples are new in "
        f"{escape(str(target))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0
