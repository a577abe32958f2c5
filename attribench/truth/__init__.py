"""What becomes of queries under models retrained on parts of the training images: retraining, losses, pictures made again."""
