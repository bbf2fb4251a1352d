"""Emission factors and prices: files, services, instruments, as series in time."""
