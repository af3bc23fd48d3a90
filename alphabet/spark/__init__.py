"""Totals of many servers: their exported segments, added up by Spark.

`alphabet spark-totals` and what it is made of. The server imports nothing of this, and
pyspark is imported by `query.py` alone, when called for.
"""
