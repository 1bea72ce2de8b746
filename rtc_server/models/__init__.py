"""The models an engine can run. Nothing here knows of peers, HTTP or processes."""
