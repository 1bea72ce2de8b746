"""A pool of engines on several machines: how many there are, which one takes the next conversation, and who tells whom.

Media nodes and engines talk to the pool over ZeroMQ; the frames go between them alone. Knows no session and no peer;
only :mod:`rtc_server.cluster.ray_launcher` knows Ray, and no media node loads it.
"""
