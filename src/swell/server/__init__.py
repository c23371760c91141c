"""The server process: it assembles everything, supervises, publishes and keeps the books."""
