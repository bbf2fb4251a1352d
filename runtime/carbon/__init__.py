"""The carbon sidecar: books metered energy per quarter hour and follows its carbon through the battery to the loads."""
