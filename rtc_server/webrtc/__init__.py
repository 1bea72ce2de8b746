"""All that touches aiortc and aioice: ICE, DTLS, SCTP, RTP, and one peer connection. Knows nothing of sessions."""
