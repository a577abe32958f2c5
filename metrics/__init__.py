"""One file per plugin, found through the entry points `attribench.metrics`; nothing is imported from here."""
