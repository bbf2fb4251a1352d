"""What outlives a process: folders, latches, keys, the journal."""
