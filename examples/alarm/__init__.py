"""A sliding alarm: a state with a history, for each sensor."""
