"""The simulated plant: physics, buses with byte timing, devices, virtual and wall time."""
