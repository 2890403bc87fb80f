"""``make soak``: the real node under steady load: its memory, its delay, and every frame's fate.

Ten minutes of image, camera info and cloud at 30 Hz, far more than the model can take. Exit code
1 when the node's memory grows by 1 MB or more per 1,000 input frames, when the median result is
older than twice the time of the model, or when a frame is gone without a reason.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import conftest  # noqa: F401, a ROS graph of its own
import numpy as np
import ros_process
from ros_process import NodeProcess, Peer
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.ros.messages import cloud_message

LIMIT_MB = 1.0  # per 1,000 input frames
LIMIT_RATIO = 1.5  # of the 95th percentile of the age, with learning to without
WARM_UP = 0.2  # of the time: pools fill, libraries load
SAMPLE_S = 5.0
FIRST_RESULTS = 3  # slower than those to come
HEIGHT, WIDTH, POINTS = 480, 640, 30_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=30.0, help="sets a second")
    parser.add_argument("--adaptation", action="store_true",
                        help="only compare the delay of results, half of the time without and "
                        "half of it while the node learns")
    args = parser.parse_args()
    parameters = {} if args.adaptation else {"queries.preset": "fast"}
    with NodeProcess(command=["-m", "sdim_ros.ros.process"],
                     parameters=parameters) as node, Peer() as peer:
        inputs = (peer.image, peer.info, peer.cloud)
        assert peer.spin_until(lambda: all(p.get_subscription_count() for p in inputs), 120), \
            node.log()
        peer.spin_until(lambda: False, 2.0)
        if args.adaptation:
            return compare(peer, node.process.pid, args.minutes * 60, args.rate)
        ages_ms: list[float] = []
        sent, samples = feed(peer, node.process.pid, args.minutes * 60, args.rate, ages_ms)
        return judge(peer, sent, samples, ages_ms)


def compare(peer: Peer, pid: int, seconds: float, rate_hz: float) -> int:
    """Print how much older results are while the node learns; the exit code."""
    ages_ms: dict[bool, list[float]] = {False: [], True: []}
    sent = 0
    for learns, ages in ages_ms.items():
        peer.call(SetBool, "/completion_node/adaptation/enable", SetBool.Request(data=learns))
        print(f"adaptation.enabled: {str(learns).lower()}", flush=True)
        sent += feed(peer, pid, seconds / 2, rate_hz, ages, sent)[0]
    task = peer.diagnosed("adaptation")
    p95 = {learns: float(np.percentile(ages[FIRST_RESULTS:], 95))
           for learns, ages in ages_ms.items()}
    ratio = p95[True] / p95[False]
    print(f"95th percentile of the age of a result: {p95[False]:.0f} ms of "
          f"{len(ages_ms[False])} without learning, {p95[True]:.0f} ms of {len(ages_ms[True])} "
          f"with it: {ratio:.2f} times (limit {LIMIT_RATIO})")
    print(f"learning: {task}")
    if not int(task["steps"]):
        print("FAILED: nothing was learnt")
    return int(ratio > LIMIT_RATIO or not int(task["steps"]))


def feed(peer: Peer, pid: int, seconds: float, rate_hz: float, ages_ms: list[float],
         before: int = 0) -> tuple[int, list[tuple[int, float]]]:
    """Publish sets of a moving camera at a steady rate, and wait for the last result.

    Args:
        ages_ms: gets the time from each image to its result.
        before: sets that were sent before: time goes on.

    Returns:
        the sets sent, and (sets sent, MB of the node) now and then.
    """
    rng = np.random.default_rng(0)
    view = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    images = [picture(np.roll(view, 40 * step, axis=1)) for step in range(16)]
    cloud = cloud_message(
        rng.uniform([-2, -1.5, 1], [2, 1.5, 20], (POINTS, 3)).astype(np.float32), None,
        images[0].header)
    info = ros_process.camera_info(HEIGHT, WIDTH)
    sent_at_s: dict[int, float] = {}

    def note_age(message: Image) -> None:
        ages_ms.append(1e3 * (time.monotonic() - sent_at_s[stamp_ns(message.header)]))

    listening = peer.node.create_subscription(Image, "depth/completed", note_age, 5)
    start, sent, samples = time.monotonic(), 0, []
    while (now := time.monotonic()) < start + seconds:
        time_ns = round(1e9 * (1 + (before + sent) / rate_hz))
        sent_at_s[time_ns] = now
        image = images[sent % len(images)]
        for publisher, message in ((peer.info, info), (peer.cloud, cloud), (peer.image, image)):
            publisher.publish(ros_process.stamped(message, time_ns))
        sent += 1
        if now - start >= SAMPLE_S * (len(samples) + 1):
            samples.append((sent, resident_mb(pid)))
            print(f"{now - start:5.0f} s  {sent:6d} sets  {len(peer.results):5d} results  "
                  f"{samples[-1][1]:7.1f} MB", flush=True)
        peer.results[:-1] = [None] * (len(peer.results) - 1)  # count them, keep none
        due = start + sent / rate_hz
        peer.spin_until(lambda due=due: time.monotonic() >= due)
    peer.spin_until(lambda: False, 5.0)  # the last frame, and a report after it
    peer.node.destroy_subscription(listening)
    return sent, samples


def picture(pixels: np.ndarray) -> Image:
    image = ros_process.colour_image(*pixels.shape[:2])
    del image.data[:]
    image.data.frombytes(pixels.tobytes())
    return image


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def judge(peer: Peer, sent: int, samples: list[tuple[int, float]], ages_ms: list[float]) -> int:
    """Print growth, delay and accounts; the exit code."""
    kept = np.array(samples[int(len(samples) * WARM_UP):])
    slope = 1000 * np.polyfit(kept[:, 0], kept[:, 1], 1)[0]
    sync, worker, inputs = (peer.diagnosed(task) for task in ("sync", "worker", "inputs"))

    def count(task, name):
        return int(task.get(name, 0))

    lost = count(inputs, "dropped: lost_in_transport")
    images = count(sync, "images")
    paired = count(sync, "pairs")
    before = {name: count(sync, name) for name in (
        "unpaired", "overtaken", "timed out", "nobody listens", "over output.max_rate_hz")}
    ended = {name: count(worker, name) for name in ("done", "replaced", "failed", "discarded")}
    waiting = count(worker, "submitted") - sum(ended.values())
    model_ms = float(peer.diagnosed("model")["complete ms p50"])
    age_ms = float(np.median(ages_ms))
    print(f"median age of a result: {age_ms:.0f} ms, {age_ms / model_ms:.2f} times the model's "
          f"{model_ms:.0f} ms (limit 2)")
    print(f"memory: {slope:+.3f} MB per 1,000 input frames (limit {LIMIT_MB})")
    print(f"sent {sent}, heard {images} images, lost in transport {lost} messages of any topic")
    print(f"of the images: paired {paired}, {before}")
    print(f"of the pairs: {ended}, still waiting or in hand {waiting}")
    dropped = {name: value for name, value in inputs.items()
               if name not in ("level", "message") and not name.endswith("Hz")}
    print(f"results received: {len(peer.results)}; messages dropped, by reason: {dropped or 'none'}")
    unexplained = (
        abs(images - paired - before["unpaired"] - before["overtaken"]
            - before["timed out"]) > 10  # those that wait
        or paired + before["timed out"] != count(worker, "submitted")
        + before["nobody listens"] + before["over output.max_rate_hz"]
        or not 0 <= waiting <= 2 or ended["failed"] or ended["done"] != len(peer.results)
        or sent - images > lost)
    if unexplained:
        print("FAILED: frames are gone without a reason")
    if slope >= LIMIT_MB:
        print("FAILED: memory grows")
    if age_ms > 2 * model_ms:
        print("FAILED: results are too old")
    return int(unexplained or slope >= LIMIT_MB or age_ms > 2 * model_ms)


if __name__ == "__main__":
    sys.exit(main())
