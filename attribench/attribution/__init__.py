"""A method's steps over a study: reading features, fitting, scoring; and what a reader is granted to see."""
