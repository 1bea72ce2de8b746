"""Networks and what stands in them: links that lose and delay, the relay and the proxy that put a call on one, a real
coturn, peers that vanish, and two peers wired together in one process."""
