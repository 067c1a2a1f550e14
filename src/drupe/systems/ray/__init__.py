"""Steps on a Ray cluster: an executor here, a driver beside it, workers there."""
