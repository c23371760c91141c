"""Implementations of the ports, one sibling each, listed in a plain mapping."""
