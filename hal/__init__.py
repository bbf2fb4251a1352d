"""What the outside looks like: how a bus is opened, what a device map says, how a plant answers."""
