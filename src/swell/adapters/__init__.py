"""One sibling per implementation of each port. Only the assembly imports from here."""
