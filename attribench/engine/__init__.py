"""Steps, the artifact store, and running the one into the other. Knows nothing of attribution."""
