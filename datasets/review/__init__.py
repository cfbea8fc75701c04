"""Review of a version by a person, in FiftyOne: the only package that knows it."""
