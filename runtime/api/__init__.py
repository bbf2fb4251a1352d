"""How a program talks to a running site: messages, clients, keys."""
