"""A cluster on one machine, to look at and to break: two media nodes behind one address, a pool on Ray, two pretended
machines with a GPU each. What is killed is started again, as service managers and Ray do.

Owns the programs and their end: nothing of them stays when it is over.
"""
