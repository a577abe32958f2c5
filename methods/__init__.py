"""One file per plugin, found through the entry points `attribench.methods`; nothing is imported from here."""
