"""The command line. This file only parses: a verb's work is imported when the verb is called, so that help is quick."""

import argparse
import gc
import os
import sys
from collections.abc import Sequence

EXIT_CODES = """\
exit codes:
  0  passed              1  the gate failed       2  the spec or the usage is wrong
  3  inconclusive        4  a stage or a suite failed
"""


def parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    top = argparse.ArgumentParser(
        prog="weighin",
        description="Make every lifecycle variant of a small language model, weigh it, decide which may be released.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    _reading_verbs(verbs)
    _working_verbs(verbs)
    for verb in verbs.choices.values():
        verb.add_argument(
            "--store", metavar="FILE", help="DuckDB file or quack:HOST:PORT (default: $WEIGHIN_STORE or weighin.duckdb)"
        )
    return top


def _reading_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    what = verbs.add_parser("list", help="list stages, suites, specs, or the store's variants and runs")
    what.add_argument("what", nargs="?", choices=["stages", "suites", "specs", "variants", "runs"], help="default: all")
    show = verbs.add_parser("show", help="a stage's or suite's documentation, or what is known of a variant or run")
    show.add_argument("name", metavar="NAME", help="stage, suite, variant (label or key) or run")
    plan = verbs.add_parser("plan", help="what a spec would make and measure, and what is held already")
    plan.add_argument("spec", nargs="?", default="default", metavar="SPEC", help="a YAML file or a packaged spec")
    compare = verbs.add_parser("compare", help="two variants, paired item by item")
    compare.add_argument("a", metavar="A", help="label of the latest run, RUN/LABEL, or a variant's key")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--run", metavar="RUN", help="the run that labels belong to (default: the latest)")
    compare.add_argument("--waive", action="append", default=[], metavar="FIELD", help="compare although FIELD differs")
    compare.add_argument("--json", action="store_true", help="everything as JSON")
    _front_verb(verbs)
    export = verbs.add_parser("export", help="write what a run found to a file")
    export.add_argument("file", metavar="FILE", help="the ending says the format: .csv .parquet .json .jsonl .md")
    export.add_argument(
        "--what",
        choices=["scores", "samples", "variants", "model-card", "every-eval-ever"],
        default="scores",
        help="tables; or the results section of a model card (.md), records of every_eval_ever (.json .jsonl)",
    )
    export.add_argument("--run", metavar="RUN", help="default: the latest")
    export.add_argument(
        "--variant", metavar="LABEL", help="of model-card and every-eval-ever (default: all of the run)"
    )
    taken = verbs.add_parser(
        "import", help="take over results of lm-eval, Inspect, pytest-benchmark, optimum-benchmark"
    )
    taken.add_argument("paths", nargs="+", metavar="PATH", help="result files, or directories that hold them")
    taken.add_argument("--as", dest="label", metavar="LABEL", help="what to call the model (default: its own name)")
    taken.add_argument(
        "--format",
        choices=["lm-eval", "inspect", "pytest-benchmark", "optimum-benchmark"],
        help="default: told from the content",
    )
    history = verbs.add_parser("history", help="a metric over the runs of a spec, with marks where something changed")
    history.add_argument("metric", metavar="METRIC", help="SUITE.METRIC")
    history.add_argument("--variant", metavar="LABEL", help="default: all")
    history.add_argument("--spec", metavar="NAME", help="the spec's name (default: the newest run's)")
    board = verbs.add_parser("board", help="open the leaderboard in a browser")
    board.add_argument("--port", type=int, default=8501)
    board.add_argument("--headless", action="store_true", help="do not open a browser")
    board.add_argument("--static", metavar="OUT", help="write the pages as files into a directory instead")


def _front_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    front = verbs.add_parser("front", help="who is on the Pareto front of a run, who may be, who is shown not to be")
    for axis, which in (("--x", "an objective, as in latency.tpot"), ("--y", "another, as in accuracy.acc")):
        front.add_argument(axis, required=True, metavar="METRIC", help=which)
    front.add_argument("--z", action="append", default=[], metavar="METRIC", help="a third; again for a fourth")
    front.add_argument("--run", metavar="RUN", help="default: the latest")
    front.add_argument(
        "--epsilon", action="append", default=[], metavar="METRIC=VALUE", help="a difference within it counts as equal"
    )
    front.add_argument(
        "--reference", action="append", default=[], metavar="METRIC=VALUE",
        help="the worst figure of interest, one for each objective: where the hypervolume begins",
    )  # fmt: skip
    front.add_argument("--against", metavar="RUN", help="hypervolume's change since (default: this spec's run before)")
    front.add_argument("--waive", action="append", default=[], metavar="FIELD", help="compare although FIELD differs")
    front.add_argument("--draws", type=int, default=200, metavar="N", help="bootstrap draws (default: 200)")
    front.add_argument("--seed", type=int, default=0, metavar="N")
    front.add_argument("--json", action="store_true", help="everything as JSON")


def _working_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _run_verb(verbs)
    _gate_verb(verbs)
    nightly = verbs.add_parser("nightly", help="run, gate against the last green run, watch every series, report")
    nightly.add_argument("spec", metavar="SPEC", help="a YAML file or a packaged spec")
    nightly.add_argument("--timeout", type=float, metavar="SECONDS", help="end the run then; what was measured is kept")
    nightly.add_argument("--out", metavar="FILE", help="the report (default: nights/RUN.md beside the checkpoints)")
    calibrate = verbs.add_parser("calibrate", help="try every instrument on planted truth on this machine")
    calibrate.add_argument(
        "suites", nargs="*", metavar="SUITE", help="default: every suite; `gate`: replay a run's rules"
    )
    calibrate.add_argument("--fast", action="store_true", help="leave out what takes minutes")
    calibrate.add_argument("--run", metavar="RUN", help="whose rules `gate` replays (default: the latest)")
    calibrate.add_argument("--replays", type=int, default=2000, metavar="N", help="how often (default: 2000)")
    merge = verbs.add_parser(
        "merge", help="add what other machines' stores hold to this one; any order, any repetition"
    )
    merge.add_argument("stores", nargs="+", metavar="FILE", help="stores; they are only read")
    merge.add_argument("--into", metavar="FILE", help="the store they are added to, new or not (default: --store)")
    serve = verbs.add_parser("serve", help="hold the store for many writers; they use --store quack:HOST:PORT")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    serve.add_argument("--port", type=int, default=9494)
    setup = verbs.add_parser("setup", help="make the environment that a stage's libraries need for themselves")
    setup.add_argument("names", nargs="*", metavar="NAME", help="as `setup --list` has them")
    setup.add_argument("--list", action="store_true", help="which there are, of what size and state")
    verbs.add_parser("doctor", help="what this machine can measure, and what is missing")
    reference = verbs.add_parser("reference", help="the reference models")
    actions = reference.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="train the reference models from scratch")
    build.add_argument("--out", default="reference", metavar="DIR", help="where to write them (default: ./reference)")
    build.add_argument("--name", choices=["base", "draft", "all"], default="all")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument(
        "--calibration", action="store_true", help="only the model that `calibrate` tries membership tests on, kept"
    )


def _run_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = verbs.add_parser("run", help="make what is missing, measure what is not held, show the scores")
    run.add_argument("spec", nargs="?", default="default", metavar="SPEC", help="a YAML file or a packaged spec")
    run.add_argument("--again", action="append", default=[], metavar="SUITE", help="measure SUITE anew although held")
    run.add_argument(
        "--replicates", type=_count, default=1, metavar="K", help="build seeded variants K times: compare recipes"
    )
    run.add_argument(
        "--scorer",
        choices=["exact", "fast", "plain"],
        help="how texts are scored: exact (default) and fast compute common beginnings once, plain does not",
    )
    run.add_argument(
        "--kv-budget", type=_bytes, metavar="BYTES",
        help="of keys and values that scoring may hold, as in 512MiB (default: a quarter of the free memory)",
    )  # fmt: skip
    run.add_argument("--engine", choices=["local", "ray"], default="local", help="who does the work (default: local)")
    run.add_argument(
        "--address", metavar="HOST:PORT", help="of a Ray cluster (default: one of its own, on this machine)"
    )
    run.add_argument("--checkpoints", metavar="URL", help="where machines share them (default: $WEIGHIN_CHECKPOINTS)")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on (got {text})")
    return int(text)


def _bytes(text: str) -> int:
    from weighin.harness.kv_budget import read

    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _gate_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    gate = verbs.add_parser("gate", help="judge a spec's rules on the latest run that weighed it")
    gate.add_argument("spec", nargs="?", default="default", metavar="SPEC")
    gate.add_argument("--run", metavar="RUN", help="default: the latest run of this spec")
    gate.add_argument(
        "--against",
        metavar="WHAT",
        help="a run, a variant, or last-green: the newest run that passed (default: rules')",
    )
    gate.add_argument("--waive", action="append", default=[], metavar="FIELD", help="judge although FIELD differs")
    gate.add_argument("--format", choices=["table", "json", "junit", "markdown"], default="table")
    gate.add_argument("--out", metavar="FILE", help="write the format there (-: standard output) beside the table")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    top = parser()
    args = top.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f"weighin {version('weighin')}")
        return 0
    if not args.verb:
        top.print_help()
        return 2
    args.store = args.store or os.environ.get("WEIGHIN_STORE", "weighin.duckdb")
    gc.set_threshold(50_000)  # imports leave many objects that stay: going through them again and again takes a tenth
    from weighin.harness.commands import VERBS
    from weighin.results.errors import WeighinError

    try:
        code = VERBS[args.verb](args)
        sys.stdout.flush()
        return code
    except WeighinError as error:
        print(f"weighin: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("weighin: stopped; what was measured is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
