"""Per-sample gradients, their projection, where they are kept, and the kernels over them: what gradient methods share."""
