"""Which of many models is the best that keeps every constraint: points, verdicts, samplers."""
