"""`tidegate demo`: the whole chain on a real GPU cluster's power, live and then in virtual time, with a report."""
