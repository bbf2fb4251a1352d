"""What is read of a ledger: totals, indicators, pages, the evidence record."""
