"""The serial console: what a technician with a laptop and a cable sees. A client of the gateway like any other."""
