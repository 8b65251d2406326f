"""Labels made by a model for people to review, and the result of them in the review."""
