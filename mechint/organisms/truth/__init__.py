"""What is true of the embedded models, measured on the very files. It imports every floor; none imports it."""
