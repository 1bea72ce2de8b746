"""A session: its state, its events, who listens to it, how a client comes back to it, and all of them together."""
