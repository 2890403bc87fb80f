"""Clothed figures that stand, walk or sit."""

from __future__ import annotations

import numpy as np

from sdim_ros.tools.procedural.meshes import rotation, sphere, superquadric, tube
from sdim_ros.tools.procedural.scene import Scene


def person(scene: Scene, sits: bool = False) -> None:
    """A figure on the ground of the scene's present axes, facing -y."""
    rng = scene.rng
    tall = rng.uniform(1.2, 1.95)
    skin, hair = scene.look("skin", fresh=True), scene.look("fabric")
    shirt, trousers, shoes = (scene.look("fabric") for _ in range(3))
    hip, neck = (0.5 if not sits else 0.28) * tall, (0.84 if not sits else 0.62) * tall
    wide = rng.uniform(0.1, 0.13) * tall
    scene.add(superquadric((wide, 0.6 * wide, (neck - hip) / 2), 0.65), shirt,
              (0, 0, (neck + hip) / 2))
    scene.add(superquadric((0.85 * wide, 0.58 * wide, 0.07 * tall), 0.6), trousers, (0, 0, hip))
    scene.add(tube(np.array([[0, 0, neck - 0.02], [0, -0.01, neck + 0.06]]), 0.05), skin)
    head = np.array([0, -0.02, neck + 0.09 * tall])
    scene.add(sphere(6, 9), skin, head, scale=(0.045 * tall, 0.055 * tall, 0.068 * tall))
    scene.add(sphere(6, 9), hair, head + [0, 0.02, 0.02],
              scale=(0.05 * tall, 0.056 * tall, 0.062 * tall))
    stride = rng.uniform(0, 0.5) * (not sits)
    for side in (-1, 1):
        swing = side * stride
        joint = np.array([side * 0.5 * wide, 0, hip])
        knee = joint + ([0, -0.25 * tall, 0.02] if sits else
                        0.25 * tall * np.array([0, -np.sin(swing), -np.cos(swing)]))
        bend = 0.0 if sits else swing - rng.uniform(0, 0.5)
        foot = knee + 0.25 * tall * np.array([0, -np.sin(bend), -np.cos(bend)])
        scene.add(tube(np.stack([joint, knee, foot]), np.array([0.047, 0.036, 0.028]) * tall, 8),
                  trousers)
        scene.add(superquadric((0.028 * tall, 0.075 * tall, 0.025 * tall), 0.6, 5, 8), shoes,
                  foot + [0, -0.04 * tall, 0])
        shoulder = np.array([side * wide, 0, neck - 0.04 * tall])
        lift = rng.uniform(-0.4, 0.7) - swing
        elbow = shoulder + 0.17 * tall * np.array([side * 0.2, -np.sin(lift), -np.cos(lift)])
        lift += rng.uniform(0, 1.2)
        hand = elbow + 0.16 * tall * np.array([0, -np.sin(lift), -np.cos(lift)])
        scene.add(tube(np.stack([shoulder, elbow, hand]), np.array([0.03, 0.025, 0.018]) * tall,
                       7), shirt)
        scene.add(sphere(4, 6), skin, hand, scale=0.025 * tall)
    if rng.random() < 0.3:
        scene.add(superquadric((0.8 * wide, 0.09, 0.13 * tall), 0.5), scene.look("fabric"),
                  (0, 0.7 * wide, neck - 0.2 * tall), rotation(0, 0.1))
