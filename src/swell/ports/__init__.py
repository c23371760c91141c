"""Ports: small contracts that adapters fulfil."""
