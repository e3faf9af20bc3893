"""The networks of GNM, ViNT and NoMaD, with the names that the tensors of the published checkpoints have."""
