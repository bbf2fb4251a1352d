"""Messages to people about alarms: a client of the gateway, in a process of its own."""
