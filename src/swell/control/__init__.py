"""The control loop over what runs: observe, decide, apply, one `step(now)` at a time."""
