"""Training a GAN: one loop for every algorithm, a run folder that explains itself, snapshots that can be trusted."""
