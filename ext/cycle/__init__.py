"""The loop, its ends, and the run around it: read, estimate, control, limit, write, publish."""
