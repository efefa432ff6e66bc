"""The kinds of objects in the toybox."""
