"""Rasterizers, one call for each kind of scene."""
