"""Ledgers of many sites on one platform: sent past a mark, checked entry by entry, kept in PostgreSQL."""
