"""Owns utterance models: the contract, the process that one runs in, the media plane's end of that, and the models.

An utterance goes in as text or sound, and its translation comes out as text and sound, later. What rooms and sessions
do with it is theirs to know.
"""
