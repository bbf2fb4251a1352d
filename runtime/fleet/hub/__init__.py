"""The hub's side: broker, checks on arrival, store, account of all sites, life of units, releases, shared limits."""
