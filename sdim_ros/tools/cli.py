"""The ``sdim`` command: one verb per tool, each imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType

from sdim_ros.core.types import SdimError

# verb: what it does, and an example without the leading "sdim".
VERBS = {
    "complete": (
        "complete sparse depth to dense depth, file to file, without ROS",
        "complete --image room.png --sparse room_depth.png --depth-scale 1000 --out result"),
    "demo": (
        "play a real scene to the real node over DDS and judge what comes back",
        "demo --out demo_out"),
    "evaluate": (
        "measure the model and classical fills on data with a reference",
        "evaluate --dataset motorcycle --points 500 --seeds 0,1,2 --out result"),
    "convert": (
        "make a frames folder, or a bag for the node, of a dataset or a bag",
        "convert --dataset motorcycle --points 500 --to bag --out motorcycle_bag"),
    "replay": (
        "complete what a robot recorded: a bag in, a bag out, without ROS or by the real node",
        "replay my_bag --points 500 --out result"),
    "train": (
        "train a checkpoint",
        "train --config config/train_tiny.yaml --out runs/tiny"),
    "adapt": (
        "tune a checkpoint on recorded frames, as the node does on the robot",
        "adapt --data my_frames --points 500 --adapt 60 --out tuned"),
    "ablate": (
        "train and judge the rows of an ablation, each for some minutes",
        "ablate --config config/ablations.yaml --out runs/ablations"),
    "bench": (
        "time the query engine against asking pixel by pixel",
        "bench --out result"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit code: 0, 2 after an error of the user (one line on stderr), 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="sdim", description="Depth completion with a vision-language model.",
        epilog="sdim VERB --help tells more about each.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for verb, (purpose, example) in VERBS.items():
        subparser = verbs.add_parser(
            verb, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=f"example:\n  sdim {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter)
        if verb == chosen:
            _tool(verb).add_arguments(subparser)
    parsed = parser.parse_args(_with_negative_values(arguments))
    parsed.command_line = ["sdim", *arguments]
    try:
        return _tool(parsed.verb).run(parsed)
    except SdimError as problem:
        print(f"sdim {parsed.verb}: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:  # a full disk, a folder that only others may write
        print(f"sdim {parsed.verb}: {problem.filename or 'a file'} cannot be read or written: "
              f"{problem.strerror or problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sdim {parsed.verb}: stopped", file=sys.stderr)
        return 130


def _with_negative_values(arguments: Sequence[str]) -> list[str]:
    """``--extrinsics -1,0`` as ``--extrinsics=-1,0``: argparse would take it for a flag."""
    found: list[str] = []
    for word in arguments:
        if re.match(r"-[\d.]", word) and found and re.fullmatch(r"--[a-z-]+", found[-1]):
            word = f"{found.pop()}={word}"
        found.append(word)
    return found


def _tool(verb: str) -> ModuleType:
    """The module of a verb: it has ``add_arguments(parser)`` and ``run(args) -> int``."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, _leave)
    try:
        return importlib.import_module(f"sdim_ros.tools.{verb}")
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(_: int, __: FrameType | None) -> None:
    """End at once: half-imported libraries would answer Ctrl-C with tracebacks, or not at all."""
    print("sdim: stopped", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
