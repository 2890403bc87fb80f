"""Where frames are converted from: datasets, and bags as the node reads them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from sdim_ros.core.config import Settings, sources_of
from sdim_ros.core.frame_reader import FrameReader, Stages
from sdim_ros.core.projection import clean_depth
from sdim_ros.core.sensor_data import stamp_ns
from sdim_ros.core.types import BadInput
from sdim_ros.tools.bags.reading import Bag
from sdim_ros.tools.bags.sets import BagSets, Set, read_reference
from sdim_ros.tools.bags.topics import Reference, choose_topics
from sdim_ros.tools.datasets.catalogue import HELD_OUT, open_dataset, open_source
from sdim_ros.tools.datasets.frames import Sample, frame_names
from sdim_ros.tools.training.data_recipe import SourceRecipe


class Source(ABC):
    """Frames that are gone through from the first to the last, as often as needed.

    Attributes:
        count: the most frames that there can be.
        depth_scale: of the files that the depths come from, where it is known.
        left_out: after `frames`: how many messages came to no frame, by the reason in words.
        damage: after `frames`: what could not be read, for people; None = nothing.
    """

    count: int = 0
    depth_scale: float | None = None
    damage: str | None = None

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}

    @abstractmethod
    def frames(self, every: int, limit: int | None, warn: Callable[[str], None]
               ) -> Iterator[tuple[str, Callable[[], Sample]]]:
        """The names of frames, and what reads them; that raises BadInput where it cannot.

        Args:
            every, limit: each K-th frame, and at most N of them.
            warn: told what looks wrong but can be used.
        """


class DatasetSource(Source):
    """A frames folder or a dataset; of a training set all frames, not only those that judge."""

    def __init__(self, folder: str | None, name: str | None) -> None:
        super().__init__()
        if name in HELD_OUT and folder is not None:
            self.samples = open_source(SourceRecipe(name, folder=Path(folder)))
        else:
            self.samples = open_dataset(folder, name)
        self.names = frame_names(self.samples)
        self.count = len(self.names)
        self.depth_scale = getattr(self.samples, "depth_scale", None)

    def frames(self, every: int, limit: int | None, warn: Callable[[str], None]
               ) -> Iterator[tuple[str, Callable[[], Sample]]]:
        for index in range(0, self.count, every)[:limit]:
            yield self.names[index], partial(self.samples.__getitem__, index)


class BagSource(Source):
    """The sets that the node would make of a bag: paired, rectified and with TF as it does.

    Args:
        path: folder of a rosbag2, one of its files, or a .bag file of ROS 1.
        named: topics by role; the others are found as `choose_topics` does.
        settings: of the node.
        reference: topic of depth images that are registered to the image; None =
            /ground_truth/depth, where the bag has it.

    Raises:
        BadInput: the bag cannot be opened, or a topic is missing or may be several.
    """

    def __init__(self, path: str | Path, named: Mapping[str, str], settings: Settings,
                 reference: str | None) -> None:
        super().__init__()
        self.path, self.settings = Path(path), settings
        with Bag(path) as bag:
            self.reference = Reference.of(bag, reference)
            self.topics = choose_topics(
                bag, named, self.reference.topic, sources_of(settings.input.sources))
            self.count = bag.topics[self.topics["image"]].count

    def frames(self, every: int, limit: int | None, warn: Callable[[str], None]
               ) -> Iterator[tuple[str, Callable[[], Sample]]]:
        told: set[str] = set()

        def tell(topic: str, _: str, text: str) -> None:
            if (line := f"{topic}: {text}") not in told:
                told.add(line)
                warn(line)

        with Bag(self.path) as bag:
            sets = BagSets(bag, self.topics, self.settings, self.reference)
            reader = FrameReader(self.topics, sets.poses, tell)
            try:
                for number, found in enumerate(sets):
                    if limit is not None and number >= limit * every:
                        break
                    if number % every == 0:
                        name = f"{stamp_ns(found.job.image.header):019d}"
                        yield name, partial(self._read, reader, found, name, tell)
            finally:
                self._conclude(bag, sets)

    def _read(self, reader: FrameReader, found: Set, name: str,
              tell: Callable[[str, str, str], None]) -> Sample:
        frame = reader.read(found.job, Stages(time.perf_counter())).frame
        sparse, _ = clean_depth(frame.sparse, 0.0, np.inf)
        try:
            truth = self._truth(found, sparse.shape)
        except BadInput as problem:
            tell(self.reference.topic, problem.reason, f"left out, {problem}")
            truth = None
        return Sample(name, frame.image, sparse, truth, frame.camera, frame.stamp_ns)

    def _truth(self, found: Set, size: tuple[int, int]) -> np.ndarray | None:
        """The reference of a set, (H, W) metres, where there is one.

        Raises:
            BadInput: it cannot be used for this image.
        """
        if found.reference is None:
            return None
        return read_reference(found.reference, size, self.settings)

    def _conclude(self, bag: Bag, sets: BagSets) -> None:
        self.left_out = {f"{reason}: {sets.skipped.texts[reason]}": count
                         for reason, count in sets.skipped.counts.items()}
        for topic, count in bag.unreadable.items():
            self.left_out[f"unreadable: {topic}: their bytes do not fit their type"] = count
        self.damage = bag.damage
