"""A site in one file: what it knows, has counted and has latched, signed; and put back on another device."""
