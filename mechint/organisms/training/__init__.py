"""Training of the embedded models: generated text, losses, optimizers. It imports every floor; none imports it."""
