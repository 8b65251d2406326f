"""Labels made by a model for people to review, and what became of them in the review."""
