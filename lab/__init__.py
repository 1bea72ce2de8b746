"""The laboratory: instruments that tests, benchmarks, training and fuzzers share, so that none imports another.

It imports the server's package and nothing of what stands beside that. Knows no test framework and asserts nothing of
the server: what an instrument finds is judged by its user.
"""
