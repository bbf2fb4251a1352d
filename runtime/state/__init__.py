"""What outlives a process: folders, latches, keys, the journal. Every file is whole or the one before."""
