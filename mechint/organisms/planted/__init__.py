"""The model that is built by hand: one direction causes its answer, one goes along. It imports every floor."""
