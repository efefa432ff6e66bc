"""Scenes that learn."""
