"""Replays traffic through the policies and the loop that run live, on a virtual clock."""
