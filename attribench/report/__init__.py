"""What a run has to say: the record, as a table, as a page and as pictures."""
