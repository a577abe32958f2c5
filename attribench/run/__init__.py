"""A run, from its configuration to its folder: configuration, prepared, executed, evaluated."""
