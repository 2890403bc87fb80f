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

from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.ros.messages import cloud_message

LIMIT_MB = 1.0  # per 1,000 input frames
WARM_UP = 0.2  # of the time: pools fill, libraries load
SAMPLE_S = 5.0
HEIGHT, WIDTH, POINTS = 480, 640, 30_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=30.0, help="sets a second")
    args = parser.parse_args()
    with NodeProcess(command=["-m", "sdim_ros.ros.process"],
                     parameters={"queries.preset": "fast"}) as node, Peer() as peer:
        inputs = (peer.image, peer.info, peer.cloud)
        assert peer.spin_until(lambda: all(p.get_subscription_count() for p in inputs), 120), \
            node.log()
        peer.spin_until(lambda: False, 2.0)
        ages_ms: list[float] = []
        sent, samples = feed(peer, node.process.pid, args.minutes * 60, args.rate, ages_ms)
        peer.spin_until(lambda: False, 5.0)  # the last frame, and a report after it
        return judge(peer, sent, samples, ages_ms)


def feed(peer: Peer, pid: int, seconds: float, rate_hz: float, ages_ms: list[float]
         ) -> tuple[int, list[tuple[int, float]]]:
    """Publish sets at a steady rate.

    Args:
        ages_ms: gets the time from each image to its result.

    Returns:
        the sets sent, and (sets sent, MB of the node) now and then.
    """
    rng = np.random.default_rng(0)
    image = ros_process.colour_image(HEIGHT, WIDTH)
    cloud = cloud_message(
        rng.uniform([-2, -1.5, 1], [2, 1.5, 20], (POINTS, 3)).astype(np.float32), None,
        image.header)
    info = ros_process.camera_info(HEIGHT, WIDTH)
    sent_at_s: dict[int, float] = {}

    def note_age(message: Image) -> None:
        ages_ms.append(1e3 * (time.monotonic() - sent_at_s[stamp_ns(message.header)]))

    peer.node.create_subscription(Image, "depth/completed", note_age, 5)
    start, sent, samples = time.monotonic(), 0, []
    while (now := time.monotonic()) < start + seconds:
        time_ns = round(1e9 * (1 + sent / rate_hz))
        sent_at_s[time_ns] = now
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
    return sent, samples


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
