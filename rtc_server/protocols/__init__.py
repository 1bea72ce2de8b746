"""Wire formats without IO: bytes and JSON to events and back. One file per protocol."""
