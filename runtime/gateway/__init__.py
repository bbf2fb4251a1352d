"""The gateway process: everything outside meets the product here, and nothing here can hurt the loop.

It reads the core's shared memory, journals meter records and events before it publishes them, and turns requests into
orders for the core's mailbox. It may be killed at any moment: what it had promised is on disk, and what it had ordered
runs out with its lease.
"""
