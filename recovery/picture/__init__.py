"""A picture of what a log says, over time."""
