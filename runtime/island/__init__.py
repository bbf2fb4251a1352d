"""A genset and PV inverters of an island, told what the loop asks for, by a process of its own."""
