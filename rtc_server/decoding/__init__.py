"""Any file with audio, as mono at 24 kHz: decoded in processes of their own, for the file is a stranger's.

``reader`` is the server's side and ``nursery`` the other process; what is between them knows neither.
"""
