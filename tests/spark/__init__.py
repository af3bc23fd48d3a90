"""Tests with Spark itself: `make spark-test` runs them, where Java is.

Their modules are not named `test_…`, so that `make test` needs neither.
"""
