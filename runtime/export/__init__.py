"""Neighbours: other protocols for the same site. Each is a client of the gateway in a process of its own."""
