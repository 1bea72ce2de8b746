"""Sound between the network and the engine: jitter buffer, codecs, playout, the microphone's timeline. No sockets."""
