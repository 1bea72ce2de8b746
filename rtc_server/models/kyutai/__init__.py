"""The moshi package's models: checkpoints, batched rows that can be reset one by one, quantization, memory."""
