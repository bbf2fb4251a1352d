"""The compiled real-time core: structs, buses, estimate, control, safety, the cycle; and the plant it is tried on."""
