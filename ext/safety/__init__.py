"""What may be done: the gate in C, the fault rows that are true, the state of each cabinet."""
