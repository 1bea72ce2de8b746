"""Speech by espeak-ng: clips for a microphone, and sound with the times of its words and phonemes."""
