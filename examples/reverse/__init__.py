"""Reverse each text: an application without a state."""
