"""The data plane: authenticate, admit, route, relay, meter. One worker is one process and one event loop."""
