"""The embedded simulator: procedural indoor worlds, a batched RGB and depth camera, a robot and scripted drivers."""
