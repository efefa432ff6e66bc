"""Judges of views."""
