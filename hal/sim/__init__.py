"""The simulated plant for people and processes: built from a compiled site, run in virtual or in wall time."""
