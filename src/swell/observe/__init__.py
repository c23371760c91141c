"""What Swell tells about itself: logs and metrics."""
