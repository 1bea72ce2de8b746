"""Measurements of the server, and of other servers beside it. ``python -m bench`` lists them.

Nothing here asserts anything by the clock: that would be a test that fails on a busy machine.
"""
