"""Procedural scenes in NumPy: meshes, textures, a rasteriser with exact depth, light, sensor."""
