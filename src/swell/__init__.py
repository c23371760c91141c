"""Swell serves open-weight language models behind one endpoint and sizes the machines beneath it."""

__version__ = "0.1.0"
