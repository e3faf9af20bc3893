"""The spatial memory: a bounded point cloud that is carved, merged and rendered."""
