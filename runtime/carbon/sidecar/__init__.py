"""The process that books: the gateway's records in, the ledger out."""
