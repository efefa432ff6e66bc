"""Meshes: taken from a representation, textured, reported on, and written."""
