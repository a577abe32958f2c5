"""One trained model and what is generated from it: the plan, and the steps that carry it out."""
