"""A model against the one it was made from: instance by instance, by average precision, and as a report for people."""
