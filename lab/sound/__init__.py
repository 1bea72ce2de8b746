"""Sound to send and to measure: tones, how alike two recordings are, and a sound card for machines without one."""
