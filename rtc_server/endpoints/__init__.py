"""The HTTP and WebSocket endpoints beside signaling, a file for each."""
