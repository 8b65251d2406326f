"""Reports for people: one HTML file with its pictures inside, readable without a network."""
