"""The unit's side: what is sent, how it joins, what it takes from its owner, what it borrows of a shared limit."""
