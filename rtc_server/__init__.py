"""A WebRTC real-time media server for full-duplex speech models."""

__version__ = "0.1.0"
