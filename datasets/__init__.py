"""One file per plugin, found through the entry points `attribench.datasets`; nothing is imported from here."""
