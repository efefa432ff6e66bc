"""What a user takes away: files of splats, meshes, pictures."""
