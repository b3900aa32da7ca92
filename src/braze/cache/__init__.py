"""What was compiled is kept, found again, and shared with those who trust each other's keys."""
