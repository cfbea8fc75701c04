"""Neural networks and detectors: how they compute, train and sample."""
