"""The other servers that this one is measured against, each in a virtual environment of its own.

``environments.py`` makes the environments; the other modules are run by their Pythons, never imported here.
"""
