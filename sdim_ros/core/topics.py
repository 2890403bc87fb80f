"""The topics of a completion node, relative, as users remap them.

The node and everything that reads or plays its bags take them from here.
"""

from __future__ import annotations

# Role -> topic.
INPUTS = {
    "image": "image",
    "camera_info": "camera_info",
    "sparse_depth": "sparse_depth/image",
    "sparse_camera_info": "sparse_depth/camera_info",
    "points": "points",
    "disparity": "disparity",
}
# Roles that may arrive compressed: what the transport adds to the topic.
TRANSPORTS = {"image": "compressed", "sparse_depth": "compressedDepth"}
# Topic -> its type in sensor_msgs, in the order in which they are published: the intrinsics before
# what needs them.
OUTPUTS = {
    "depth/camera_info": "CameraInfo",
    "depth/completed": "Image",
    "depth/confidence": "Image",
    "depth/points": "PointCloud2",
    "depth/normals": "Image",
    "debug/overlay": "Image",
    "debug/doubted": "Image",
}
