"""Names of notes in the journal that mean a failure of something beside the loop: people are told of them."""

ISLAND_DEVICE = "island device"  # a genset or an inverter does not do what it is told, or cannot be told
