"""The model under study: how it is read, trained, sampled from and what a loss is; and what watches its training."""
