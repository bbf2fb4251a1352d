"""How a program talks to a running site: messages, clients, keys. A client needs nothing else of Tidegate."""
