"""How long the ledger takes to answer: `python -m benchmarks.ledger`, described in docs/benchmarks.md."""
