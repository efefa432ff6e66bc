"""What lifting, rewards and exporters share: hulls, distance fields."""
