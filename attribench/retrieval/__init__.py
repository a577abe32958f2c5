"""Finding rows among a million: exact ranks and nearest rows by cosine, read from disk in blocks; and faiss beside it."""
