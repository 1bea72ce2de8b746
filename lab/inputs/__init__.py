"""What peers send, well made or not: offers of browsers and devices, files with audio, Ogg pages, mutations."""
