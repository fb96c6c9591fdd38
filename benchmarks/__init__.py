"""Sweeps that compare: what latprune does on many networks, and what another tool does on the same."""
