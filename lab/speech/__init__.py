"""Speech by espeak-ng and by voices made from people's: clips for a microphone, and sound with the times of its words
and phonemes."""
