"""What a technician does with a bus while the controller is not on it: scan, read, sniff."""
