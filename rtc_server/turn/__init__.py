"""TURN: the list of ICE servers that clients are given, and the relay that this project starts (coturn)."""
