"""Count words: several outputs of one event, and a partitioned state."""
