"""Side-by-side runs against peers, on one machine in one run."""
