"""What a model will cost on a machine, foretold: size, memory, time; and what suits a machine."""
