"""The camera infos of the inputs, and a pair that came before the first of them.

Topics are not ordered: the first camera info may come just after its image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

OWN_INFO = "sparse_camera_info"  # role of the info of a depth image
PATIENCE_S = 5.0


class FirstInfos:
    """Lets pairs through, and holds the newest one while it lacks a camera info.

    Depth whose camera has an own info that has not come yet would pass for depth registered to
    the image, so it waits too, for ``PATIENCE_S`` in all.

    Args:
        send: takes the image and its sparse messages by source.
        dropped: told the role of the info that a pair waited for in vain.
        has_own_info: whether somebody publishes an info beside the depth image.
        clock: seconds.

    Attributes:
        latest: the camera infos by role, ``camera_info`` and ``sparse_camera_info``.
    """

    def __init__(self, send: Callable[[Any, Mapping[str, Any]], Any],
                 dropped: Callable[[str], Any], has_own_info: Callable[[], bool],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._send, self._dropped, self._clock = send, dropped, clock
        self._has_own_info = has_own_info
        self._waiting: tuple[Any, Mapping[str, Any]] | None = None
        self._patient_until_s: float | None = None
        self.latest: dict[str, Any] = {}

    def add_info(self, role: str, message: Any) -> None:
        """Keep a camera info; whoever waited for it goes on."""
        self.latest[role] = message
        self.expire()

    def add(self, image: Any, sparse: Mapping[str, Any]) -> None:
        """Send a pair, or let it wait in the place of the one that waits."""
        self.expire()
        if self._lacking(sparse) is None:
            self._send(image, sparse)
        else:
            self.drop()
            self._waiting = image, sparse

    def expire(self, patience: bool = True) -> None:
        """Send the pair that waits, when it has all or has waited for long enough.

        Args:
            patience: False = depth waits no longer, as nothing comes any more.
        """
        if not patience:
            self._patient_until_s = -math.inf
        if self._waiting is not None and self._lacking(self._waiting[1]) is None:
            waiting, self._waiting = self._waiting, None
            self._send(*waiting)

    def drop(self) -> None:
        """Give up the pair that waits, if any."""
        if self._waiting is not None:
            self._waiting = None
            self._dropped(OWN_INFO if "camera_info" in self.latest else "camera_info")

    def _lacking(self, sparse: Mapping[str, Any]) -> str | None:
        """The role of the info that a pair needs and that is not there."""
        if "camera_info" not in self.latest:
            return "camera_info"
        if "sparse_depth" not in sparse or OWN_INFO in self.latest or not self._has_own_info():
            return None
        if self._patient_until_s is None:
            self._patient_until_s = self._clock() + PATIENCE_S
        return OWN_INFO if self._clock() < self._patient_until_s else None
