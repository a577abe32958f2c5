"""Files: a stranger's read within bounds, our own written whole or not at all, and text that may be shown."""
