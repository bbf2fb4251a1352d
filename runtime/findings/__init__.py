"""What is behind the alarms: evidence of a running site put together into causes, for everyone who shows one."""
