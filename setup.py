"""Builds the package for colcon and for pip."""

import sys
from glob import glob

from setuptools import find_packages, setup

NAME = "sdim_ros"

share_files = [
    ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
    (f"share/{NAME}", ["package.xml"]),
    (f"share/{NAME}/launch", glob("launch/*.launch.py")),
    (f"share/{NAME}/config", glob("config/*")),
]
# colcon reads setup.cfg and puts the executables where ros2 run looks for them. Wheels ignore it.
if "bdist_wheel" in sys.argv:
    share_files.append((f"lib/{NAME}", glob("scripts/*")))

setup(
    name=NAME,
    version="0.1.0",
    description="Depth completion by a vision-language model that answers in digits, with a "
                "ROS 2 node",
    license="Apache-2.0",
    maintainer="sdim_ros developers",
    maintainer_email="sdim-ros@example.org",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={NAME: ["checkpoints/*/*", "tools/*.json", "tools/*.j2", "tools/*.css"]},
    data_files=share_files,
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.24",
        "scipy>=1.10",
        "torch>=2.6",
        "transformers>=5,<6",
        "huggingface_hub>=1",
        "accelerate>=1",
        "peft>=0.18",
        "safetensors>=0.4",
        "opencv-contrib-python-headless>=4.8",
        "matplotlib>=3.7",
        "jinja2>=3.1",
        "rich>=13",
        "PyYAML>=6",
        "rosbags>=0.10",
        "scikit-image>=0.22",
        "pillow>=9.4",
        "threadpoolctl>=3",
    ],
    extras_require={
        # Without this entry colcon test finds no tests, and says that all went well.
        "test": ["pytest>=7,<9", "pytest-xdist>=3.8"],
        "quantize": ["torchao>=0.15"],
        # Curves in the browser, and the files of Hypersim and NYU-Depth V2.
        "train": ["tensorboard>=2.14", "h5py>=3.8"],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"completion_node = {NAME}.ros.process:main",
            f"completion_cameras = {NAME}.ros.process:cameras_main",
            f"sdim = {NAME}.tools.cli:main",
        ],
    },
)
