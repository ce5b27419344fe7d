"""The verbs that let several machines share a store."""

import argparse
import signal
import threading
from pathlib import Path

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


def serve(args: Args) -> int:
    """Serve the store until the process is told to stop."""
    from weighin.results.address import TOKEN, Address, place
    from weighin.results.errors import WeighinError
    from weighin.results.server import serving, wait

    path, address = place(args.store), Address(args.host, args.port)
    if not isinstance(path, Path):
        raise WeighinError(f"serve: {path} is a server already; name a file with --store")
    stop = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    with serving(path, address) as con:
        say = Console()
        say.print(f"Serving {escape(str(path))} at {address}", highlight=False, soft_wrap=True)
        say.print(f"With the same {TOKEN}: weighin run SPEC --store {address}", highlight=False, soft_wrap=True)
        if not address.loopback:
            say.print("Plain HTTP: let a proxy with TLS stand before it; clients elsewhere ask for TLS.")
        wait(con, stop)
    return 0
