"""The operator's page, and the operations of the API over HTTPS: a client of the gateway, in a process of its own."""
