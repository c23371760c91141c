"""How many replicas, of what kind, and which ones go. Pure."""
