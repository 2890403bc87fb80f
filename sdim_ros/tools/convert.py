"""``sdim convert``: a dataset or a bag becomes a frames folder, or a bag that the node plays."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from sdim_ros.core.config import Settings, with_values
from sdim_ros.core.types import BadInput
from sdim_ros.tools import sampling
from sdim_ros.tools.assignments import parse_assignments, parse_numbers
from sdim_ros.tools.bag_writer import STORAGES
from sdim_ros.tools.bags.topics import GROUND_TRUTH, parse_topics
from sdim_ros.tools.conversion import RATE_HZ, Conversion
from sdim_ros.tools.datasets.catalogue import DATASETS
from sdim_ros.tools.frame_sources import BagSource, DatasetSource, Source
from sdim_ros.tools.training.stop import Stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sdim convert``."""
    source = parser.add_argument_group("what is converted")
    source.add_argument("--data", metavar="FOLDER", help="a frames folder, or the files of the "
                        "dataset that --dataset names")
    source.add_argument("--dataset", choices=DATASETS, metavar="NAME",
                        help=", ".join(DATASETS))
    source.add_argument("--bag", metavar="PATH", help="folder of a rosbag2, one of its files, or "
                        "a .bag file of ROS 1")
    source.add_argument("--topics", metavar="ROLE=/TOPIC,...", help="of the bag: image, "
                        "camera_info, points, sparse_depth, disparity, sparse_camera_info; "
                        "default: found by type")
    source.add_argument("--gt-topic", metavar="/TOPIC", help="of the bag: depth images that are "
                        f"the reference; default: {GROUND_TRUTH} where it is")
    source.add_argument("--extrinsics", metavar="X,Y,Z,QX,QY,QZ,QW", help="pose of the LiDAR in "
                        "the camera's optical frame; default: from the bag's /tf and /tf_static")
    source.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="how the bag is read, as parameters of the node, e.g. "
                        "input.rectify=true or sync.slop_s=0.1; may be repeated")
    source.add_argument("--every", type=int, default=1, metavar="K", help="each K-th frame")
    source.add_argument("--limit", type=int, metavar="N", help="at most N frames")
    source.add_argument("--camera", metavar="FX,FY,CX,CY", help="intrinsics in pixels for frames "
                        "that come without")
    target = parser.add_argument_group("what it becomes")
    target.add_argument("--to", choices=("frames", "bag"), required=True,
                        help="a frames folder, or a bag with the topics of the node")
    target.add_argument("--out", required=True, metavar="PATH", help="new or empty folder")
    target.add_argument("--points", metavar="N|N%", help="sparse depth is N pixels or a share of "
                        "them, drawn from the sparse map, or from gt where there is none; as "
                        "evaluate draws them; default: the sparse map as it is")
    target.add_argument("--seed", type=int, default=0, help="of that draw (default 0)")
    target.add_argument("--rate", type=float, metavar="HZ", help="gives stamps to frames that "
                        f"have none; default: {RATE_HZ:g} for a bag, no stamps for frames")
    target.add_argument("--depth-scale", type=float, metavar="S", help="of a frames folder: "
                        "metres = PNG value / S; default: one that keeps the depths as they are, "
                        "else the finest of 1000, 256 and 100 that holds the farthest")
    target.add_argument("--storage", choices=STORAGES, help="of a bag; default: mcap")
    target.add_argument("--compress", action="store_true", help="zstd in a bag")


def run(args: argparse.Namespace) -> int:
    """Convert; frames that cannot be used are named and left out.

    Returns:
        0, or 130 or 143 when Ctrl-C or SIGTERM came before the end; what was written until then
        is whole.

    Raises:
        BadInput: nothing could be converted, or not all of a bag be read.
    """
    _check(args)
    source, camera = _open(args), parse_numbers("--camera", args.camera, 4)
    with Stop("frame") as stop, Progress(console=Console(stderr=True)) as progress:
        conversion = Conversion(source, camera, args, progress, lambda: stop.signal != 0)
        conversion.write()
    Console().print(conversion.summary(), highlight=False, markup=False, soft_wrap=True)
    if stop.signal and conversion.stopped_early:
        Console(stderr=True).print("stopped before the end; what is written is whole")
        return 128 + stop.signal
    if source.damage is not None:
        raise BadInput("bag", f"{args.bag} could not be read as a whole: {source.damage}; what "
                       f"could is in {args.out}")
    return 0


def _open(args: argparse.Namespace) -> Source:
    if args.bag is None:
        return DatasetSource(args.data, args.dataset)
    values = parse_assignments(args.set)
    if args.extrinsics is not None:
        values["projection.extrinsics"] = parse_numbers("--extrinsics", args.extrinsics, 7)
    return BagSource(args.bag, parse_topics(args.topics), with_values(Settings(), values),
                     args.gt_topic)


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is read.

    Raises:
        BadInput: ``arguments``, ``amount``.
    """
    for flag, value in (("--every", args.every), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise BadInput("arguments", f"{flag} {value}: expected at least 1")
    if args.seed < 0:
        raise BadInput("arguments", f"--seed {args.seed}: expected at least 0")
    for flag, value in (("--rate", args.rate), ("--depth-scale", args.depth_scale)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise BadInput("arguments", f"{flag} {value}: expected a number over 0")
    if args.points:
        sampling.parse_amount(args.points, "--points")
    if args.bag is not None and (args.data is not None or args.dataset is not None):
        raise BadInput("arguments", "--bag stands alone: give it, or --data and --dataset")
    misplaced: dict[str, Any] = {
        "--topics is for --bag": args.bag is None and args.topics,
        "--gt-topic is for --bag": args.bag is None and args.gt_topic,
        "--extrinsics is for --bag": args.bag is None and args.extrinsics,
        "--set is for --bag": args.bag is None and args.set,
        "--depth-scale is for --to frames": args.to == "bag" and args.depth_scale,
        "--storage is for --to bag": args.to == "frames" and args.storage,
        "--compress is for --to bag": args.to == "frames" and args.compress,
    }
    for text, wrong in misplaced.items():
        if wrong:
            raise BadInput("arguments", f"{text}: leave it out")
