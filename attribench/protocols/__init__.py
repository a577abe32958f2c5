"""One file per experiment; a preset is a TOML file beside it."""
