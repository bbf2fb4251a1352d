"""The recorder: the last minutes of every cycle in memory, in a file when something happens, and in a replay."""
