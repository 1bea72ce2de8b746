"""What the operating system gives this process, and takes: memory, descriptors, child processes, time on a core."""
