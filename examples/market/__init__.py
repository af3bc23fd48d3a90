"""Orders and quotes: two pipelines that share a partitioned state."""
