"""The lifecycle node `fusion`: instance maps and points to labelled points and objects in 3D."""
