"""What can be known to go wrong before any work: found at plan time, all of it at once."""
