"""How good fakes are: distances between sets of pictures in the features of a network with no part in the training."""
