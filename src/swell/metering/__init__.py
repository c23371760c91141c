"""From spool to ledger, and the leasing of limits to workers."""
