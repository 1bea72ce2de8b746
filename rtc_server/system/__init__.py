"""What the operating system gives this process, and takes: memory, descriptors, child processes, time on a core. And
how much of that others may have."""
