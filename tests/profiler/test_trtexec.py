"""NVIDIA's command, as it is told to users."""
