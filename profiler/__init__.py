"""What a network is and what it costs: the trace, the channel groups, the units, the runtimes, and measuring them."""
