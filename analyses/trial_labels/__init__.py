"""Labels for replies of trials: how the bundled ones were sampled, and how more are made."""
