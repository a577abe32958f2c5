"""One trained model and what is made from it: the plan, the steps that carry it out, what a method may see."""
