"""A log's records in Alphabet's own words, for `alphabet-replay`."""
