"""Providers, each in a module of its own: a server loads those of the places that it has.

To add one: copy a sibling, make it in `swell.server.assembly`, and describe its kind in `swell.spec.providers`.
"""
